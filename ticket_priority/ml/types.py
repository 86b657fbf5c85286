"""The values and protocols that packages pass to each other. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

CLASS_NAMES: Final[tuple[str, str, str]] = ("low", "medium", "high")
"""Class names indexed by class id."""

MAX_TOKENS: Final[int] = 512
"""The longest input, in tokens, that a model may be given."""

SUM_TOLERANCE: Final[float] = 1e-3
"""How far from 1 the sum of an answer's probabilities may be."""

PROVENANCES: Final[dict[str, str]] = {
    "audit": "a person set the priority without having seen the prediction, which was held back",
    "override": "a person changed the priority, and the plugin recorded it",
    "confirmation": "a person said that the priority is right, and the plugin recorded it",
    "reviewed": "a person worked on the ticket and left the prediction as it was",
    "host_change": "the host holds another value than the plugin wrote there",
    "host": "the host holds a value that the plugin did not write",
}
"""Where a label comes from, the most reliable first."""


class ArtifactFile:
    """File names inside a published artifact."""

    WEIGHTS: Final = "model.safetensors"
    ONNX: Final = "model.onnx"
    TOKENIZER: Final = "tokenizer.json"
    CONFIG: Final = "config.json"
    METRICS: Final = "metrics.json"
    DATASET: Final = "dataset.json"
    MANIFEST: Final = "manifest.json"


ARTIFACT_FORMAT: Final[int] = 1
"""The version of the artifact layout this package writes and the newest it reads."""


@dataclass(frozen=True, slots=True)
class Classification:
    """A model's answer for one text.

    `probabilities` holds one number a class, in the order of `CLASS_NAMES`, summing to 1. `chosen`
    is the class id that a rule chose; None: the most probable class, on a tie the higher priority.
    """

    probabilities: tuple[float, ...]
    chosen: int | None = None

    @property
    def priority(self) -> int:
        """The class id of the chosen class."""
        if self.chosen is not None:
            return self.chosen
        return max(range(len(self.probabilities)), key=lambda i: (self.probabilities[i], i))

    @property
    def is_sound(self) -> bool:
        """Whether the probabilities are valid: one a class, none below 0, summing to 1."""
        return (
            len(self.probabilities) == len(CLASS_NAMES)
            and all(0 <= probability <= 1 + SUM_TOLERANCE for probability in self.probabilities)
            and abs(sum(self.probabilities) - 1) <= SUM_TOLERANCE
        )

    @property
    def label(self) -> str:
        """The name of the chosen class."""
        return CLASS_NAMES[self.priority]

    @property
    def confidence(self) -> float:
        """The probability of the chosen class, 0 to 1."""
        return self.probabilities[self.priority]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One training example: normalised text, class id, and where it came from.

    Rows of one `group` are near-copies. `provenance` is a key of `PROVENANCES`. `weight` multiplies
    the row's part in the training loss. `created_at` is when the ticket was created, as ISO 8601 in
    UTC, always of one length, so that it sorts as text.
    """

    text: str
    label: int
    group: str = ""
    source: str = ""
    pk: str = ""
    language: str = ""
    segment: str = ""
    created_at: str = ""
    provenance: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LabelSuspicion:
    """A row whose label is likely wrong: its index, its class id, and the likely one."""

    place: int
    label: int
    looks_like: int
    probability: float


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The configuration of a training run. Raises ValueError on an impossible value.

    Learning rates are per optimiser step; `max_length` is in tokens; `patience` in epochs.
    `precision`, `devices`, `accelerator` and `strategy` take Lightning's values; "auto" picks bf16
    where the hardware has it.

    `learning_rate` is that of the top layer, and each layer below has `layer_decay` times the rate
    of the one above. `trainable_layers` is None to train everything, or how many of the top layers
    train beside the head. `attention_dropout` and `hidden_dropout` are None for the base model's
    own. `class_weight` "balanced" gives each class the same weight in the loss. `ordinal_smoothing`
    is the share of a label that goes to the neighbouring classes; `ordinal_loss` the weight, beside
    the cross-entropy, of the expected squared distance to the true class. `soft_labels` is the
    share of each training label that goes to the answer of a linear model that was fitted to other
    texts. `seeds` transformers are trained from as many seeds, and `ensemble` adds a linear model:
    their mean is published where it does better on the validation split than each alone. With fewer
    than `few_labels` texts to train and validate on, nothing is fine-tuned: a regression on the
    encoder's features is fitted, and cross-validation chooses.
    """

    model_name: str = "distilbert-base-multilingual-cased"
    output_dir: str = "outputs"
    max_epochs: int = 4
    batch_size: int = 32
    max_length: int = MAX_TOKENS
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    lr_scheduler: str | None = None
    warmup_ratio: float = 0.1
    trainable_layers: int | None = None
    layer_decay: float = 1.0
    attention_dropout: float | None = None
    hidden_dropout: float | None = None
    class_weight: str | None = None
    ordinal_smoothing: float = 0.0
    ordinal_loss: float = 0.0
    soft_labels: float = 0.0
    seeds: int = 1
    ensemble: bool = False
    few_labels: int = 0
    precision: str = "auto"
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    patience: int | None = 2
    monitor: str = "val_accuracy"
    seed: int = 42
    num_workers: int = 0
    threads: int | None = None
    resume_from: str | None = None
    quantize: bool = True
    wandb_project: str | None = None
    wandb_mode: str = "online"
    local_files_only: bool = False

    def __post_init__(self) -> None:
        _require(
            bool(self.model_name),
            "model_name must name a hub model, a folder, 'embedded' or 'linear'",
        )
        _require(1 <= self.max_length <= MAX_TOKENS, f"max_length must be 1 to {MAX_TOKENS} tokens")
        for name in ("max_epochs", "batch_size", "accumulate_grad_batches", "num_nodes", "seeds"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1")
        _require(
            str(self.devices) != "0", "devices must be at least 1, a list like '0,1', or 'auto'"
        )
        for name in ("learning_rate", "head_learning_rate", "gradient_clip_val"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be positive")
        for name in ("weight_decay", "few_labels", "ordinal_loss"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative")
        for name in ("warmup_ratio", "ordinal_smoothing", "soft_labels"):
            _require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1")
        _require(self.lr_scheduler in (None, "cosine"), "lr_scheduler must be None or 'cosine'")
        _require(
            self.trainable_layers is None or self.trainable_layers >= 0,
            "trainable_layers must be None (all) or at least 0 (the head alone)",
        )
        _require(0 < self.layer_decay <= 1, "layer_decay must be above 0 and at most 1")
        for name in ("attention_dropout", "hidden_dropout"):
            value = getattr(self, name)
            _require(
                value is None or 0 <= value < 1,
                f"{name} must be None (the base model's own) or at least 0 and below 1",
            )
        _require(self.class_weight in (None, "balanced"), "class_weight must be None or 'balanced'")
        _require(self.patience is None or self.patience >= 1, "patience must be None or at least 1")
        _require(
            self.monitor in ("val_accuracy", "val_loss", "val_macro_f1"),
            "monitor must be val_accuracy, val_macro_f1 or val_loss",
        )
        _require(
            self.wandb_mode in ("online", "offline", "disabled"),
            "wandb_mode must be online, offline or disabled",
        )
        _require(
            not self.resume_from or self.model_name != "linear",
            "resume_from is for a transformer; a linear model is trained in one go",
        )
        _require(
            not self.resume_from or self.seeds == 1,
            "resume_from goes on with one transformer: set seeds to 1",
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a trainer returns.

    `artifact_dir` holds every artifact file but the manifest, ready to be published; `metrics`
    is JSON-ready (keys `model`, `majority`, `serving`, `training`, beside a transformer
    `tfidf_logreg`, and `transformer` where it was one candidate of several).
    """

    artifact_dir: Path
    run_dir: Path
    best_checkpoint: Path | None
    metrics: dict[str, Any] = field(default_factory=dict)


class Classifier(Protocol):
    """Runs one published artifact. Instances are safe to share between threads."""

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """Classify normalised texts, in their order. An empty list gives an empty list."""
        ...


class ClassifierFactory(Protocol):
    """A class whose instances are classifiers."""

    def __call__(
        self, directory: Path, *, threads: int | None = None, batch_tokens: int = 4096
    ) -> Classifier:
        """Load the artifact in `directory`. Raises ArtifactError when it cannot."""
        ...


ProgressCallback = Callable[[str], None]
"""Takes one line about what a long step is doing."""


def silent(line: str) -> None:
    """Ignore the line: the `ProgressCallback` of a caller that wants no output."""


class Trainer(Protocol):
    """A function that trains a model."""

    def __call__(
        self,
        train: Sequence[LabelledText],
        validation: Sequence[LabelledText],
        test: Sequence[LabelledText],
        config: TrainingConfig,
        *,
        progress: ProgressCallback = ...,
        show_progress_bar: bool = ...,
    ) -> TrainingResult:
        """Fit a model and write its artifact. Raises TrainingError saying what to do."""
        ...


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
