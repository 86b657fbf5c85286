"""The kinds of model: what reads, serves and trains each. A new kind is one row of `KINDS`.

Classes and functions are named by dotted path, so that the table imports neither torch nor numpy.
"""

from __future__ import annotations

import importlib.util
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self, cast

from ticket_priority.ml.types import ClassifierFactory, Trainer


class ModelConfig(Protocol):
    """A kind's config.json, a frozen dataclass; `temperature` divides the scores before softmax."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def temperature(self) -> float: ...  # noqa: D102
    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read and check `directory`/config.json. Raises ArtifactError saying what to do."""
        ...

    def write(self, directory: Path) -> None:
        """Write config.json into `directory`."""
        ...


@dataclass(frozen=True, slots=True)
class Requirement:
    """Packages that must be importable, and the extra of this distribution that brings them."""

    packages: tuple[str, ...]
    extra: str

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    @property
    def command(self) -> str:
        """The command that installs them."""
        return f'pip install "django-ticket-priority[{self.extra}]"'


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A kind of model. Dotted paths name its parts.

    `name` is in config.json. `config` is a ModelConfig, `classifier` the ClassifierFactory where
    the settings name no other. `trainer` is the Trainer that the model name `name` chooses; None:
    another kind's trainer makes such models. `serving` and `training` are what must be installed,
    beside `SERVING` and what `ml.trainers` itself needs.
    """

    name: str
    config: str
    classifier: str
    serving: Requirement
    trainer: str | None = None
    training: Requirement = Requirement((), "ml")

    def load_config(self) -> type[ModelConfig]:
        """Import the class of its config.json."""
        return cast("type[ModelConfig]", _load(self.config))

    def load_classifier(self) -> ClassifierFactory:
        """Import its default classifier. Raises ImportError where packages are missing."""
        return cast(ClassifierFactory, _load(self.classifier))

    def load_trainer(self) -> Trainer:
        """Import its trainer. Raises ImportError where packages are missing."""
        if self.trainer is None:
            raise ImportError(f"A model of kind {self.name} has no trainer of its own.")
        return cast(Trainer, _load(self.trainer))


SERVING: Final = Requirement(("numpy", "safetensors"), "serving")
"""What serving a model of any kind needs."""

_ONNX: Final = Requirement(("onnxruntime", "tokenizers"), "serving")

KINDS: Final[dict[str, ModelKind]] = {
    kind.name: kind
    for kind in (
        ModelKind(
            name="transformer",
            config="ticket_priority.ml.artifacts.transformer.TransformerConfig",
            classifier="ticket_priority.ml.serving.onnx.OnnxClassifier",
            serving=_ONNX,
            trainer="ticket_priority.ml.trainers.pipeline.fit",
            training=Requirement(
                ("torch", "lightning", "transformers", "torchmetrics", "onnx", "onnxruntime"), "ml"
            ),
        ),
        ModelKind(
            name="linear",
            config="ticket_priority.ml.artifacts.linear.LinearConfig",
            classifier="ticket_priority.ml.serving.linear.LinearClassifier",
            serving=Requirement((), "serving"),
            trainer="ticket_priority.ml.trainers.linear.train.fit",
            training=Requirement(("sklearn",), "linear"),
        ),
        ModelKind(
            name="ensemble",
            config="ticket_priority.ml.artifacts.ensemble.EnsembleConfig",
            classifier="ticket_priority.ml.serving.ensemble.EnsembleClassifier",
            serving=_ONNX,
        ),
    )
}


def kind_to_train(model_name: str) -> ModelKind:
    """Return the kind that a model name chooses: one of that name, else a transformer."""
    kind = KINDS.get(model_name)
    return KINDS["transformer"] if kind is None or kind.trainer is None else kind


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
