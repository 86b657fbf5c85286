"""The linear candidate: TF-IDF of words and letters, and logistic regression. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion

from ticket_priority.exceptions import TrainingError
from ticket_priority.ml.artifacts import linear
from ticket_priority.ml.evaluation import metrics
from ticket_priority.ml.evaluation.calibration import cross_entropy, fit_temperature
from ticket_priority.ml.softmax import softmax
from ticket_priority.ml.types import CLASS_NAMES, ArtifactFile, LabelledText

ClassWeight = Literal["balanced"] | None

C_VALUES: Final = (0.1, 1.0, 10.0, 100.0)
"""The inverse regularisation strengths that `choose` tries."""

CLASS_WEIGHTS: Final[tuple[ClassWeight, ...]] = ("balanced", None)

_SMALL: Final = 1_000
_LARGE: Final = 20_000
"""From this number of rows on, letter counts cost minutes and gigabytes for little accuracy."""


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A fitted pipeline. `temperature` divides its scores before they become probabilities."""

    features: FeatureUnion
    regression: LogisticRegression
    temperature: float = 1.0

    @property
    def learned(self) -> list[int]:
        """The class ids that training saw, ascending."""
        return list(self.regression.classes_.tolist())

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return [texts, classes]; a class that training did not see has probability 0."""
        return self.probabilities_of(self.scores(self.features.transform(texts)))

    def scores(self, counted: Any) -> npt.NDArray[np.float64]:
        """Return [texts, learned classes] before temperature and softmax.

        `counted` is the output of `features.transform`.
        """
        found = np.asarray(self.regression.decision_function(counted))
        if found.ndim == 1:
            # Of two classes scikit-learn scores only the second.
            found = np.stack((np.zeros_like(found), found), axis=1)
        return found.astype(np.float64)

    def probabilities_of(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Return [texts, classes] for scores [texts, learned classes]."""
        answers = np.zeros((len(scores), len(CLASS_NAMES)), np.float32)
        answers[:, self.learned] = softmax(scores, self.temperature)
        return answers

    def write(self, directory: Path) -> int:
        """Write model.safetensors and config.json; return the size of the weights in bytes."""
        path = directory / ArtifactFile.WEIGHTS
        save_file(self._tensors(), path)
        linear.LinearConfig(tuple(self.learned), self.temperature).write(directory)
        return path.stat().st_size

    def _tensors(self) -> dict[str, npt.NDArray[Any]]:
        coefficients = np.asarray(self.regression.coef_).T
        intercepts = np.asarray(self.regression.intercept_)
        if len(intercepts) == 1:
            coefficients = np.hstack((np.zeros_like(coefficients), coefficients))
            intercepts = np.append(0.0, intercepts)
        vectorizers = dict(self.features.transformer_list)
        words, letters = vectorizers["words"], vectorizers.get("letters")
        number_of_words = len(words.vocabulary_)
        listed, of_words = _weights(
            "word", words, coefficients[:number_of_words], lambda ngram: ngram.split(" ")
        )
        characters, of_letters = _weights("letter", letters, coefficients[number_of_words:], list)
        return {
            "words": np.frombuffer("\n".join(listed).encode(), np.uint8),
            "letters": np.array([ord(character) for character in characters], np.int32),
            "intercepts": intercepts.astype(np.float32),
            **of_words,
            **of_letters,
        }


def train(
    rows: Sequence[LabelledText],
    *,
    C: float = 1.0,
    class_weight: ClassWeight = "balanced",
    weighted: bool = False,
) -> LinearModel:
    """Fit a linear model to `rows`, with their weights where `weighted`.

    It counts words, pairs of words, and 3 to 5 letters within a word. Raises TrainingError where
    there is a single class, or no usable word.
    """
    texts, labels, weights = columns_of(rows)
    features, counted = _fit_features(texts)
    weights = weights if weighted else None
    return LinearModel(features, _fit_regression(counted, labels, weights, C, class_weight))


def serving_figures(size: int) -> dict[str, Any]:
    """Return the `serving` metrics of a linear artifact whose weights take `size` bytes."""
    return {
        "precision": "fp32",
        "reason": "a linear model is served as it was trained",
        "size_mb": round(size / 1e6, 1),
    }


@dataclass(frozen=True, slots=True)
class Trial:
    """A model that `choose` tried, and how it did on the validation split."""

    model: LinearModel
    C: float
    class_weight: ClassWeight
    figures: Mapping[str, float]


def choose(
    train: Sequence[LabelledText],
    validation: Sequence[LabelledText],
    monitor: str,
    *,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Trial:
    """Fit models to `train` and return the one that does best on `validation`, calibrated there.

    Tries values of C and class weights, and compares them by `monitor` ("val_accuracy",
    "val_macro_f1" or "val_loss"); on a tie the more regularised model wins. Its temperature
    minimises the loss on `validation`. A row's weight multiplies its part in the loss on `train`;
    figures are not weighted. Raises TrainingError like `train`.
    """
    fitted_texts, labels, weights = columns_of(train)
    features, counted = _fit_features(fitted_texts)
    texts, truth, _ = columns_of(validation)
    judged = features.transform(texts)
    trials = []
    for C in C_VALUES:
        for class_weight in CLASS_WEIGHTS:
            regression = _fit_regression(counted, labels, weights, C, class_weight)
            model = LinearModel(features, regression)
            trial = Trial(model, C, class_weight, _judge(model, judged, truth))
            trials.append(trial)
            on_trial(trial)
    sign = -1 if monitor == "val_loss" else 1
    best = max(trials, key=lambda trial: sign * trial.figures[monitor])
    columns = _columns(best.model, truth).tolist()
    temperature = fit_temperature(best.model.scores(judged), columns)
    return replace(best, model=replace(best.model, temperature=temperature))


def answers_out_of_fold(
    rows: Sequence[LabelledText], trial: Trial, folds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return probabilities [rows, classes] for each fold, of a model fitted to the other folds.

    It has the vocabulary, C, class weight and temperature of `trial`. `folds` [rows] numbers each
    row's fold. Rows get zeros where the other folds have a single class.
    """
    texts, labels, weights = columns_of(rows)
    counted, truth = trial.model.features.transform(texts), np.asarray(labels)
    answers = np.zeros((len(texts), len(CLASS_NAMES)), np.float32)
    for fold in np.unique(folds):
        others, judged = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(np.unique(truth[others])) < 2:
            continue
        regression = _fit_regression(
            counted[others],
            truth[others].tolist(),
            None if weights is None else weights[others],
            trial.C,
            trial.class_weight,
        )
        model = replace(trial.model, regression=regression)
        answers[judged] = model.probabilities_of(model.scores(counted[judged]))
    return answers


def columns_of(
    rows: Sequence[LabelledText],
) -> tuple[list[str], list[int], npt.NDArray[np.float64] | None]:
    """Return texts, labels and weights with a mean of 1; None where all weights are the same."""
    texts, labels, weights = [], [], np.ones(len(rows))
    # Rows may be read from disk, so each is taken once.
    for place, row in enumerate(rows):
        texts.append(row.text)
        labels.append(row.label)
        weights[place] = row.weight
    # With a mean of 1, weights do not change the regularisation.
    return texts, labels, None if (weights == weights[:1]).all() else weights / weights.mean()


def _fit_features(texts: Sequence[str]) -> tuple[FeatureUnion, Any]:
    """Return the fitted vectorizers, and the counts of the texts."""
    features = _features(len(texts))
    try:
        counted = features.fit_transform(texts)
        letters = dict(features.transformer_list).get("letters")
        if letters and (kept := _without_rare_letters(letters.vocabulary_)):
            letters.set_params(vocabulary=kept)
            counted = features.fit_transform(texts)
    except ValueError as error:
        raise TrainingError(f"The texts hold no words to learn from: {error}") from error
    return features, counted


def _features(rows: int) -> FeatureUnion:
    vectorizer = partial(TfidfVectorizer, sublinear_tf=True, dtype=np.float32)
    words = vectorizer(
        ngram_range=linear.WORD_NGRAMS,
        token_pattern=linear.WORD_PATTERN,
        min_df=1 if rows < _SMALL else 2,
        max_features=50_000,
    )
    letters = vectorizer(
        analyzer="char_wb", ngram_range=linear.LETTER_NGRAMS, min_df=2, max_features=100_000
    )
    return FeatureUnion([("words", words)] + ([("letters", letters)] if rows < _LARGE else []))


def _without_rare_letters(vocabulary: Mapping[str, int]) -> list[str]:
    """Return the n-grams of the most frequent characters; nothing where all of them fit."""
    letters = Counter(character for ngram in vocabulary for character in set(ngram))
    if len(letters) <= linear.MOST_LETTERS:
        return []
    kept = {character for character, _ in letters.most_common(linear.MOST_LETTERS)}
    return [ngram for ngram in sorted(vocabulary) if kept.issuperset(ngram)]


def _fit_regression(
    counted: Any,
    labels: Sequence[int],
    weights: npt.NDArray[np.float64] | None,
    C: float,
    class_weight: ClassWeight,
) -> LogisticRegression:
    if len(set(labels)) < 2:
        raise TrainingError("All texts to train on are of one class: there is nothing to learn.")
    regression = LogisticRegression(C=C, class_weight=class_weight, max_iter=1000)
    return regression.fit(counted, labels, sample_weight=weights)


def _judge(model: LinearModel, counted: Any, truth: Sequence[int]) -> dict[str, float]:
    scores = model.scores(counted)
    report = metrics.report(truth, probabilities=model.probabilities_of(scores))
    return {
        "val_accuracy": report["accuracy"],
        "val_macro_f1": report["macro_f1"],
        "val_loss": cross_entropy(scores, _columns(model, truth)),
    }


def _columns(model: LinearModel, truth: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return each label's column of scores, -1 for a class that training did not see."""
    places = {label: column for column, label in enumerate(model.learned)}
    return np.array([places.get(label, -1) for label in truth], np.int64)


def _weights(
    name: str,
    vectorizer: TfidfVectorizer | None,
    coefficients: Any,
    split: Callable[[str], list[str]],
) -> tuple[list[str], dict[str, npt.NDArray[Any]]]:
    """Return the words or letters that `split` finds in the n-grams, and the n-grams' tensors."""
    vocabulary = vectorizer.vocabulary_ if vectorizer else {}
    parts = sorted({part for ngram in vocabulary for part in split(ngram)})
    numbers = {part: number for number, part in enumerate(parts, start=1)}

    def key(ngram: str) -> int:
        value = 0
        for part in split(ngram):
            value = value * (len(parts) + 1) + numbers[part]
        return value

    keyed = sorted((key(ngram), column) for ngram, column in vocabulary.items())
    columns = np.array([column for _, column in keyed], np.int64)
    idf = vectorizer.idf_ if vectorizer else np.zeros(0)
    return parts, {
        f"{name}_keys": np.array([number for number, _ in keyed], np.int64),
        f"{name}_idf": np.asarray(idf)[columns].astype(np.float32),
        f"{name}_coefficients": np.ascontiguousarray(coefficients[columns], np.float32),
    }
