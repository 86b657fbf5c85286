from __future__ import annotations

from tests.ml.conftest import toy_rows
from ticket_priority.ml.trainers.linear import baselines as baseline
from ticket_priority.ml.types import LabelledText


def test_majority_answers_the_most_frequent_class_of_the_training_split() -> None:
    train = [LabelledText("a", 1), LabelledText("b", 1), LabelledText("c", 0)]
    test = [LabelledText("d", 1), LabelledText("e", 0), LabelledText("f", 0)]
    figures = baseline.majority(train, test)
    assert figures["confusion_matrix"] == [[0, 2, 0], [0, 1, 0], [0, 0, 0]]


def test_tfidf_learns_what_words_tell() -> None:
    figures = baseline.tfidf_logreg(toy_rows(120, seed=1), toy_rows(60, seed=2))
    assert figures["accuracy"] >= 0.95
    assert figures["n"] == 60
    assert 0 <= figures["calibration_error"] <= 1


def test_shuffled_labels_teach_nothing() -> None:
    train = toy_rows(120, seed=1)
    moved = [
        LabelledText(row.text, (row.label + index // 3) % 3) for index, row in enumerate(train)
    ]
    assert baseline.tfidf_logreg(moved, toy_rows(60, seed=2))["accuracy"] < 0.7


def test_a_class_that_training_lacks_is_never_predicted() -> None:
    train = toy_rows(80, seed=1, classes=(0, 2))
    figures = baseline.tfidf_logreg(train, toy_rows(60, seed=2))
    predicted_medium = [row[1] for row in figures["confusion_matrix"]]
    assert predicted_medium == [0, 0, 0]
    assert figures["per_class"]["high"]["recall"] >= 0.95


def test_one_class_alone_falls_back_to_the_majority() -> None:
    train = toy_rows(20, seed=1, classes=(2,))
    test = toy_rows(30, seed=2)
    assert baseline.tfidf_logreg(train, test) == baseline.majority(train, test)


def test_texts_without_a_word_fall_back_to_the_majority() -> None:
    train = [LabelledText("?", 0), LabelledText("!", 1), LabelledText("", 1)]
    assert baseline.tfidf_logreg(train, train) == baseline.majority(train, train)
