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

_FILE = "model.safetensors"
_ERROR_LENGTH = 160


@lru_cache  # a process keeps using one version, even if another is uploaded meanwhile
def fetch(name: str) -> Path:
    """Download the weights of a hub name to this machine, unless they are in its cache.

    Args:
        name: starts with one of HUB_PREFIXES.
    Raises:
        RequestError: the name is malformed, its weights do not exist, or they cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download  # takes half a second
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it logs every attempt
    found = re.fullmatch(r"(?:hf-hub:([\w.-]+/[\w.-]+)|timm:([\w.-]+))(?:@([\w./-]+))?", name)
    if found is None:
        raise RequestError(
            f"model.checkpoint: {name} is not a name of the hub; use hf-hub:OWNER/NAME or timm:NAME, and "
            "@REVISION after it if needed"
        )
    repository = found[1] or f"timm/{found[2]}"
    try:
        return Path(hf_hub_download(repository, _FILE, revision=found[3]))
    except Exception as error:  # each of its transports has errors of its own
        raise RequestError(f"model.checkpoint: {_explain(error, name, repository)}") from None


def _explain(error: Exception, name: str, repository: str) -> str:
    """Why a file of the hub cannot be fetched, and what to do."""
    from huggingface_hub import constants, errors

    reason = one_line(error, _ERROR_LENGTH)
    match error:
        case errors.LocalEntryNotFoundError():
            return f"{name} is not in this machine's cache, and the hub cannot be reached; go online, or name a file"
        case errors.EntryNotFoundError():
            return f"{repository} has no {_FILE}; download its weights and name the file"
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
