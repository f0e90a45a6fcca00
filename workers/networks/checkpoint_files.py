"""What users may name instead of a checkpoint file: a folder, the index of a network in parts, another kind of file.

Not covered: what a checkpoint file holds (checkpoints.py); how parts are put together (pipeline/import_checkpoint.py).
"""

import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.locations import is_web
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import instead_of
from smoothcert.workers.storage import hub
from smoothcert.workers.storage.file_kinds import HEAD_BYTES, Group, Kind, known_kind
from smoothcert.workers.storage.store import Store

INDEX_SUFFIX = ".index.json"
"""Suffix of an index: it lists which of several files holds each tensor."""

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".best")
_USUAL_NAMES = (hub.WEIGHTS, hub.PICKLED)  # names that save_pretrained gives
_REMEDIES: dict[Group | None, str] = {
    "pointer": "fetch the file itself with `git lfs pull`",
    "page": "download the file itself",
    "compressed": "decompress it",
    "archive": "extract it, or save a plain state dict",
    "tar": "extract it, and name the file in it",
    "hdf5": "if Keras wrote it, save the weights as safetensors",
}


def require_checkpoint(url: str, store: Store) -> None:
    """Refuse a checkpoint that does not exist or is a folder.

    Args:
        url: `model.checkpoint`.
        store: the store that holds it.
    Raises:
        RequestError: it is not a file; for a folder, the error says which file in it to name.
    """
    if store.find(url) is not None and not url.endswith("/"):
        return
    files = [] if is_web(url) else sorted(entry.url.rpartition("/")[2] for entry in store.files(url))
    if files or (not is_web(url) and store.folders(url)) or ("://" not in url and Path(url).is_dir()):
        remedy = in_folder(url.rstrip("/"), files, "write model.checkpoint:")
        raise RequestError(f"model.checkpoint: {url} is a folder; {remedy}")
    raise RequestError(f"model.checkpoint: {url} does not exist; {instead_of(url, store)}")


def what_it_is(checkpoint: Path) -> str | None:
    """If a file is not a checkpoint, what it is and what to do; None if that is not clear.

    Args:
        checkpoint: a local file.
    """
    with checkpoint.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "it is empty; fetch it again"
    if head.lstrip().startswith(b"{"):
        return _json(checkpoint)
    kind = known_kind(head)
    if kind is None or kind.group == "pickle" or _may_be_of_torch(checkpoint, kind):
        return None
    return f"it is {kind.name}; {_REMEDIES.get(kind.group, 'name a file of weights')}"


def is_index(checkpoint: Path) -> bool:
    """Whether a file is the index of a network in several files."""
    with checkpoint.open("rb") as file:
        if not file.read(HEAD_BYTES).lstrip().startswith(b"{"):
            return False
    try:
        return isinstance(json.loads(checkpoint.read_bytes())["weight_map"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def is_part(url: str) -> bool:
    """Whether a file has the name of one part of a network in several files."""
    return re.search(r"-\d+-of-\d+\.\w+$", url) is not None


def _may_be_of_torch(checkpoint: Path, kind: Kind) -> bool:
    if kind.name != "a zip archive":
        return False
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:  # damaged; torch may have written it
        return True


def _json(checkpoint: Path) -> str:
    if is_index(checkpoint):
        return "it is the index of a network in parts; `smoothcert import-checkpoint FILE` makes one file of them"
    return "it is JSON, such as a network's configuration; name the file of weights"


def in_folder(folder: str, files: Sequence[str], take: str) -> str:
    """What to do instead of naming a folder.

    Args:
        folder: the URL of the folder.
        files: names of the files in it.
        take: the text before the name of the most likely file.
    """
    weights = [name for name in _USUAL_NAMES if name in files]
    weights += [name for name in files if name.endswith(_SUFFIXES) and not is_part(name) and name not in weights]
    index = next((name for name in files if name.endswith(INDEX_SUFFIX)), None)
    if index is not None and not any(name in files for name in _USUAL_NAMES):
        fetch = "copy it to a folder of this machine, then " if "://" in folder else ""
        place = index if fetch else f"{folder}/{index}"
        return f"its network is in parts; {fetch}`smoothcert import-checkpoint {place}` makes one file of them"
    if weights:
        others = f" (it also holds {listed(weights[1:])})" if weights[1:] else ""
        return f"{take} {folder}/{weights[0]}{others}"
    return f"it holds {listed(files)}, so name a file of weights" if files else "it holds no file; name one"
