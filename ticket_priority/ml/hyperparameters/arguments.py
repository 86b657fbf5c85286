"""The command line arguments of a training run. Standard library only."""

from __future__ import annotations

from argparse import BooleanOptionalAction, _ArgumentGroup

from ticket_priority.ml.hyperparameters.presets import PRESETS


def add_to(group: _ArgumentGroup) -> None:
    """Add `--preset` and an argument for each field of TrainingConfig; None where not given."""
    add = group.add_argument
    add(
        "--preset",
        choices=list(PRESETS),
        help="hyperparameters that go together; the flags change it",
    )
    add("--model-name", help="hub id, local folder, 'embedded' or 'linear'")
    add("--output-dir", help="where runs, logs and checkpoints go")
    add(
        "--resume",
        dest="resume_from",
        metavar="CKPT",
        help="a transformer's checkpoint to go on from",
    )
    add("--epochs", dest="max_epochs", type=int, help="passes over the tickets, at most")
    add("--batch-size", type=int)
    add("--max-length", type=int, help="tokens a ticket, at most 512")
    add("--learning-rate", type=float)
    add("--head-learning-rate", type=float)
    add("--weight-decay", type=float)
    add("--lr-scheduler", choices=["cosine"])
    add("--warmup-ratio", type=float)
    add("--trainable-layers", type=int, help="top layers to train; 0: the head")
    add("--layer-decay", type=float, help="a layer's rate, of that of the one above")
    add("--attention-dropout", type=float)
    add("--class-weight", choices=["balanced"], help="give each class the same weight")
    add("--ordinal-smoothing", type=float, help="share of a label to its neighbours")
    add("--ordinal-loss", type=float, help="weight of the squared distance to the true class")
    add("--few-labels", type=int, help="with fewer labels than this, nothing is fine-tuned")
    add("--seeds", type=int, help="transformers to train and average")
    add(
        "--ensemble",
        action=BooleanOptionalAction,
        help="add a linear model, and publish the mean where it is better",
    )
    add("--precision", help="auto, 32-true, bf16-mixed, 16-mixed, ...")
    add("--accelerator", help="auto, cpu, gpu, ...")
    add("--devices", type=_devices, help="a number, a list like 0,1, or auto")
    add("--num-nodes", type=int, help="machines that train together")
    add("--strategy", help="auto, ddp, ...")
    add("--accumulate-grad-batches", type=int)
    add("--gradient-clip-val", type=float)
    add("--patience", type=int, help="epochs without gain before stopping")
    add("--monitor", choices=["val_accuracy", "val_macro_f1", "val_loss"])
    add("--num-workers", type=int)
    add("--threads", type=int, help="CPU threads; default: the usable cores")
    add("--seed", type=int)
    add("--wandb-project", help="log to Weights & Biases too")
    add("--wandb-mode", choices=["online", "offline", "disabled"])
    add(
        "--no-quantize",
        dest="quantize",
        action="store_false",
        default=None,
        help="serve float32, without trying int8",
    )
    add(
        "--local-files-only",
        action="store_true",
        default=None,
        help="download nothing: the base model must be on this machine",
    )


def _devices(value: str) -> int | str:
    return int(value) if value.isdigit() else value
