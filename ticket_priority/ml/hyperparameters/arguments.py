"""The command line arguments of a training run. Standard library only."""

from __future__ import annotations

from argparse import BooleanOptionalAction, _ArgumentGroup

from ticket_priority.ml.hyperparameters.presets import PRESETS


def add_to(group: _ArgumentGroup) -> None:
    """Add `--preset` and an argument for each field of TrainingConfig; None where not given."""
    group.add_argument(
        "--preset",
        choices=list(PRESETS),
        help="hyperparameters that go together; the flags change it",
    )
    group.add_argument("--model-name", help="hub id, local folder, 'embedded' or 'linear'")
    group.add_argument("--output-dir", help="where runs, logs and checkpoints go")
    group.add_argument(
        "--resume",
        dest="resume_from",
        metavar="CKPT",
        help="a transformer's checkpoint to go on from",
    )
    group.add_argument(
        "--epochs", dest="max_epochs", type=int, help="passes over the tickets, at most"
    )
    group.add_argument("--batch-size", type=int)
    group.add_argument("--max-length", type=int, help="tokens a ticket, at most 512")
    group.add_argument("--learning-rate", type=float)
    group.add_argument("--head-learning-rate", type=float)
    group.add_argument("--weight-decay", type=float)
    group.add_argument("--lr-scheduler", choices=["cosine"])
    group.add_argument("--warmup-ratio", type=float)
    group.add_argument("--trainable-layers", type=int, help="top layers to train; 0: the head")
    group.add_argument("--layer-decay", type=float, help="a layer's rate, of that of the one above")
    group.add_argument("--attention-dropout", type=float)
    group.add_argument(
        "--class-weight", choices=["balanced"], help="give each class the same weight"
    )
    group.add_argument("--ordinal-smoothing", type=float, help="share of a label to its neighbours")
    group.add_argument(
        "--ordinal-loss", type=float, help="weight of the squared distance to the true class"
    )
    group.add_argument(
        "--few-labels", type=int, help="with fewer labels than this, nothing is fine-tuned"
    )
    group.add_argument("--seeds", type=int, help="transformers to train and average")
    group.add_argument(
        "--ensemble",
        action=BooleanOptionalAction,
        help="add a linear model, and publish the mean where it is better",
    )
    group.add_argument("--precision", help="auto, 32-true, bf16-mixed, 16-mixed, ...")
    group.add_argument("--accelerator", help="auto, cpu, gpu, ...")
    group.add_argument("--devices", type=_devices, help="a number, a list like 0,1, or auto")
    group.add_argument("--num-nodes", type=int, help="machines that train together")
    group.add_argument("--strategy", help="auto, ddp, ...")
    group.add_argument("--accumulate-grad-batches", type=int)
    group.add_argument("--gradient-clip-val", type=float)
    group.add_argument("--patience", type=int, help="epochs without gain before stopping")
    group.add_argument("--monitor", choices=["val_accuracy", "val_macro_f1", "val_loss"])
    group.add_argument("--num-workers", type=int)
    group.add_argument("--threads", type=int, help="CPU threads; default: the usable cores")
    group.add_argument("--seed", type=int)
    group.add_argument("--wandb-project", help="log to Weights & Biases too")
    group.add_argument("--wandb-mode", choices=["online", "offline", "disabled"])
    group.add_argument(
        "--no-quantize",
        dest="quantize",
        action="store_false",
        default=None,
        help="serve float32, without trying int8",
    )
    group.add_argument(
        "--local-files-only",
        action="store_true",
        default=None,
        help="download nothing: the base model must be on this machine",
    )


def _devices(value: str) -> int | str:
    return int(value) if value.isdigit() else value
