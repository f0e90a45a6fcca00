"""Weights by name: `hf-hub:OWNER/NAME` of the Hugging Face Hub, `timm:NAME` for hf-hub:timm/NAME; without torch.

Each machine downloads the file into its own cache, that of huggingface_hub. HF_HOME names its folder, HF_TOKEN gives
access to private repositories, and HF_HUB_OFFLINE=1 uses only what the cache holds. `@REVISION` after the name fixes
one version.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.locations import HUB_PREFIXES
from smoothcert.manifests.names import one_line
from smoothcert.workers.storage.disk import is_forbidden, is_full, is_too_large, reason_of, remedy_for

WEIGHTS = "model.safetensors"
PICKLED, _INDEX = "pytorch_model.bin", "model.safetensors.index.json"
_ERROR_LENGTH = 160


@lru_cache  # a process keeps using one version, even if another is uploaded meanwhile
def fetch(name: str, file: str = WEIGHTS) -> Path:
    """Download a file of a hub name to this machine, unless it is in its cache.

    Args:
        name: starts with one of HUB_PREFIXES.
        file: in its repository; the weights, if not given.
    Raises:
        RequestError: the name is malformed, its file does not exist, or it cannot be downloaded.
    """
    found = fetch_if_there(name, file)
    if found is None:
        raise RequestError(f"model.checkpoint: {_missing(name, file)}")
    return found


def fetch_if_there(name: str, file: str) -> Path | None:
    """The same, but None if the repository exists and has no such file."""
    from huggingface_hub import errors, hf_hub_download  # takes half a second
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it logs every attempt
    repository, revision = _repository(name)
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # each of its transports has errors of its own
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            return None
        raise RequestError(f"model.checkpoint: {_explain(error, name, repository)}") from None


def _repository(name: str) -> tuple[str, str | None]:
    """OWNER/NAME and the revision."""
    found = re.fullmatch(r"(?:hf-hub:([\w.-]+/[\w.-]+)|timm:([\w.-]+))(?:@([\w./-]+))?", name)
    if found is None:
        raise RequestError(
            f"model.checkpoint: {name} is not a name of the hub; use hf-hub:OWNER/NAME or timm:NAME, and "
            "@REVISION after it if needed"
        )
    return found[1] or f"timm/{found[2]}", found[3]


def _missing(name: str, file: str) -> str:
    """That a repository lacks a file, and what to do."""
    repository, _ = _repository(name)
    if file == WEIGHTS:
        for other, remedy in (
            (PICKLED, "weights are pickled ({}); download the file, and `smoothcert import-checkpoint` converts it"),
            (_INDEX, "network is in parts ({}); download it, and `smoothcert import-checkpoint` makes one file of it"),
        ):
            if _has_file(name, other):
                return f"{repository} has no {file}: its {remedy.format(other)}"
    return f"{repository} has no {file}; download its weights and name the file"


def _has_file(name: str, file: str) -> bool:
    """Whether a repository has a file, without downloading it; False if the hub does not answer."""
    from huggingface_hub import file_exists

    repository, revision = _repository(name)
    try:
        return file_exists(repository, file, revision=revision)
    except Exception:  # this only improves the message of an error
        return False


def _explain(error: Exception, name: str, repository: str) -> str:
    """Why a file of the hub cannot be fetched, and what to do."""
    from huggingface_hub import constants, errors

    reason = one_line(error, _ERROR_LENGTH)
    match error:
        case errors.LocalEntryNotFoundError():
            return f"{name} is not in this machine's cache, and the hub cannot be reached; go online, or name a file"
        case errors.GatedRepoError():
            return (
                f"{name} is gated: accept its conditions on the hub's page of {repository}, and set HF_TOKEN to a "
                "token of that account"
            )
        case errors.RepositoryNotFoundError() | errors.RevisionNotFoundError():
            return f"the hub has no {name} that you may read; correct the name, or set HF_TOKEN ({reason})"
    if (failed := _of_the_disk(error)) is not None:
        remedy = remedy_for(failed, "that folder", "set HF_HOME to another folder")
        return f"{name} cannot be kept in {constants.HF_HUB_CACHE}: {reason_of(failed)}; {remedy}"
    return f"{name} cannot be fetched: {reason}; check name and network, and try again"


def is_hub_name(url: str) -> bool:
    return url.startswith(HUB_PREFIXES)


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """The error of the cache's disk behind an error, if there is one; errors of the network are OSErrors, too."""
    while error is not None:
        if found := re.search(r"\(os error (\d+)\)", str(error)):  # from the transport in Rust
            error = OSError(int(found[1]), os.strerror(int(found[1])))
        if isinstance(error, OSError) and (is_full(error) or is_too_large(error) or is_forbidden(error)):
            return error
        error = error.__cause__ or error.__context__
    return None
