"""Weights by name: `hf-hub:OWNER/NAME` of the Hugging Face Hub, `timm:NAME` for hf-hub:timm/NAME; without torch.

Each machine fetches the file into its own cache, that of huggingface_hub: HF_HOME says where, HF_TOKEN lets into
private repositories, HF_HUB_OFFLINE=1 takes what is there. `@REVISION` behind the name keeps to one version of it.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.locations import HUB_PREFIXES
from smoothcert.workers.storage.disk import is_forbidden, is_full, is_too_large, reason_of, remedy_for

_FILE = "model.safetensors"


@lru_cache  # so that a process keeps to one version, whatever is uploaded meanwhile
def fetch(name: str) -> Path:
    """The weights of a hub name, on this machine.

    Args:
        name: begins as one of HUB_PREFIXES.
    Raises:
        RequestError: the name is none, its weights do not exist, or cannot be had.
    """
    from huggingface_hub import constants, errors, hf_hub_download  # half a second
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it tells of every attempt
    found = re.fullmatch(r"(?:hf-hub:([\w.-]+/[\w.-]+)|timm:([\w.-]+))(?:@([\w./-]+))?", name)
    if found is None:
        raise RequestError(
            f"model.checkpoint: {name} is no name of the hub; use hf-hub:OWNER/NAME or timm:NAME, @REVISION behind it"
        )
    repository = found[1] or f"timm/{found[2]}"
    try:
        return Path(hf_hub_download(repository, _FILE, revision=found[3]))
    except errors.LocalEntryNotFoundError:
        raise RequestError(
            f"model.checkpoint: {name} is not in this machine's cache, and the hub cannot be reached; go online, "
            "or name a file"
        ) from None
    except errors.EntryNotFoundError:
        raise RequestError(
            f"model.checkpoint: {repository} has no {_FILE}; download its weights and name the file"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise RequestError(
            f"model.checkpoint: the hub has no {name} that you may read; correct the name, or set HF_TOKEN "
            f"({_line(error)})"
        ) from None
    except Exception as error:  # each of its transports has errors of its own
        if (failed := _of_the_disk(error)) is not None:
            raise RequestError(
                f"model.checkpoint: {name} cannot be kept in {constants.HF_HUB_CACHE}: {reason_of(failed)}; "
                f"{remedy_for(failed, 'that folder', 'set HF_HOME to another folder')}"
            ) from None
        raise RequestError(
            f"model.checkpoint: {name} cannot be fetched: {_line(error)}; check name and network, and try again"
        ) from None


def is_hub_name(url: str) -> bool:
    return url.startswith(HUB_PREFIXES)


def _of_the_disk(error: BaseException | None) -> OSError | None:
    """The refusal of the cache's disk behind an error, as errors of the network are OSErrors, too; else None."""
    while error is not None:
        if found := re.search(r"\(os error (\d+)\)", str(error)):  # of the transport in Rust
            error = OSError(int(found[1]), os.strerror(int(found[1])))
        if isinstance(error, OSError) and (is_full(error) or is_too_large(error) or is_forbidden(error)):
            return error
        error = error.__cause__ or error.__context__
    return None


def _line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:160]
