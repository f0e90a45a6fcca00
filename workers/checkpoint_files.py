"""What users name instead of a checkpoint file: a folder, the index of a network in parts, a file of another kind.

Not covered: what a checkpoint file holds (checkpoints.py); how parts are put together (pipeline/import_checkpoint.py).
"""

import json
import re
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from manifests.errors import RequestError
from manifests.names import listed
from manifests.shards import instead_of
from workers.storage import Store

INDEX_SUFFIX = ".index.json"
"""Of the file that says in which of several files each tensor lies."""

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".best")
_USUAL = ("model.safetensors", "pytorch_model.bin")  # as save_pretrained calls them
_HEAD_BYTES = 512
_OTHERS = (  # the first bytes of a file, what it is, what to do
    (b"version https://git-lfs", "it is a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (b"<", "it is a web page; download the file itself"),
    (b"\x1f\x8b", "it is compressed with gzip; decompress it"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; decompress it"),
    (b"\x89HDF", "it is HDF5, as Keras writes; save the weights as safetensors"),
)


def require_checkpoint(url: str, store: Store) -> None:
    """Refuse a checkpoint that is not there, or is a folder.

    Args:
        url: `model.checkpoint`.
        store: that holds it.
    Raises:
        RequestError: it is no file; of a folder, the line says which file in it to name.
    """
    if store.find(url) is not None and not url.endswith("/"):
        return
    files = sorted(entry.url.rpartition("/")[2] for entry in store.files(url))
    if files or store.folders(url) or ("://" not in url and Path(url).is_dir()):
        remedy = in_folder(url.rstrip("/"), files, "write model.checkpoint:")
        raise RequestError(f"model.checkpoint: {url} is a folder; {remedy}")
    raise RequestError(f"model.checkpoint: {url} does not exist; {instead_of(url, store)}")


def what_it_is(checkpoint: Path) -> str | None:
    """What a file is that is no checkpoint, and what to do; None where that is not clear.

    Args:
        checkpoint: a local file.
    """
    with checkpoint.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "it is empty; fetch it again"
    if head.lstrip().startswith(b"{"):
        return _json(checkpoint)
    if found := next((says for begins, says in _OTHERS if head.lstrip().startswith(begins)), None):
        return found
    if zipfile.is_zipfile(checkpoint) and not _is_of_torch(checkpoint):
        return "it is a zip archive of other files; extract it, or save a plain state dict"
    if tarfile.is_tarfile(checkpoint):
        return "it is a tar archive; extract it, and name the file in it"
    return None


def is_index(checkpoint: Path) -> bool:
    """Whether a file says in which files the tensors of a network in parts lie."""
    with checkpoint.open("rb") as file:
        if not file.read(_HEAD_BYTES).lstrip().startswith(b"{"):
            return False
    try:
        return isinstance(json.loads(checkpoint.read_bytes())["weight_map"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def is_part(url: str) -> bool:
    """Whether a file's name says that it is one of several that hold a network."""
    return re.search(r"-\d+-of-\d+\.\w+$", url) is not None


def _is_of_torch(checkpoint: Path) -> bool:
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:  # damaged; who made it is not known
        return True


def _json(checkpoint: Path) -> str:
    if is_index(checkpoint):
        return "it is the index of a network in parts; `smoothcert import-checkpoint FILE` makes one file of them"
    return "it is JSON, such as a network's configuration; name the file of weights"


def in_folder(folder: str, files: Sequence[str], take: str) -> str:
    """What to do instead of naming a folder.

    Args:
        folder: its URL.
        files: names of the files in it.
        take: the words before the file that is most likely meant.
    """
    weights = [name for name in _USUAL if name in files]
    weights += [name for name in files if name.endswith(_SUFFIXES) and not is_part(name) and name not in weights]
    index = next((name for name in files if name.endswith(INDEX_SUFFIX)), None)
    if index is not None and not any(name in files for name in _USUAL):
        fetch = "copy it to a folder of this machine, then " if "://" in folder else ""
        place = index if fetch else f"{folder}/{index}"
        return f"its network is in parts; {fetch}`smoothcert import-checkpoint {place}` makes one file of them"
    if weights:
        others = f" (it also holds {listed(weights[1:])})" if weights[1:] else ""
        return f"{take} {folder}/{weights[0]}{others}"
    return f"it holds {listed(files)}, so name a file of weights" if files else "it holds no file; name one"
