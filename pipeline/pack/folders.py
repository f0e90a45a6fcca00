"""Class folders, as torchvision's ImageFolder and timm read them: SOURCE/CLASS/.../NAME.jpg.

Images at any depth belong to the class of the first folder. Without labels, images may lie anywhere in SOURCE.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed
from smoothcert.pipeline.pack.listing import LeftOut, Listing, Reason, in_utf8, keys_of
from smoothcert.workers.tars.tar_headers import IMAGE_SUFFIXES, is_system_member

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def list_folders(root: Path, *, labelled: bool) -> Listing:
    """List the images of class folders.

    Args:
        root: the folder that holds the class folders.
        labelled: whether the first folder of a path is the class; otherwise images have no labels.
    Raises:
        RequestError: there is no image, or the class folders seem to be splits.
    """
    left_out, paths, digest = [], list[str](), hashlib.sha256()
    for path, status in _walk(root, "", ()):
        if reason := _reason_against(path, status, labelled=labelled):
            left_out.append(LeftOut(in_utf8(path), reason))
        elif status is not None:
            digest.update(f"{in_utf8(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            paths.append(path)
    if not paths:
        raise RequestError(_without_images(root, left_out))
    if labelled:
        _refuse_splits(root, {path.partition("/")[0] for path in paths})
    kept, keys = [], []
    for path, key in zip(paths, keys_of([in_utf8(path) for path in paths]), strict=True):
        if key is None:
            left_out.append(LeftOut(in_utf8(path), Reason.repeated))
        else:
            kept.append(path)
            keys.append(key)
    return Listing(
        names=[in_utf8(path) for path in kept],
        keys=keys,
        labels=[sys.intern(in_utf8(path.partition("/")[0])) if labelled else None for path in kept],
        class_names=None,
        left_out=tuple(left_out),
        fingerprint=digest.hexdigest(),
        read=lambda number: (root / kept[number]).read_bytes(),
        what_names_classes="folders",
    )


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result | None]]:
    """Each file below a folder, sorted by its path relative to the root; None for a broken link.

    A link to a folder above is not followed.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
    for name in names:
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name, (*above, here))
        else:
            try:
                yield prefix + name, (folder / name).stat()
            except FileNotFoundError:
                yield prefix + name, None


def _reason_against(path: str, status: os.stat_result | None, *, labelled: bool) -> Reason | None:
    if is_system_member(path):
        return Reason.system
    if status is None:
        return Reason.missing
    if any(part.startswith(".") for part in path.split("/")):
        return Reason.hidden
    if path.rpartition(".")[2].lower() not in IMAGE_SUFFIXES:
        return Reason.suffix
    if not status.st_size:
        return Reason.empty
    return Reason.outside if labelled and "/" not in path else None


def _without_images(root: Path, left_out: list[LeftOut]) -> str:
    if not left_out:
        return f"{root}: holds no file; name a folder of class folders, a Parquet file or a CSV file"
    if any(one.reason == Reason.outside for one in left_out):
        return (
            f"{root}: its images lie in no class folders, so they have no labels; sort them into SOURCE/CLASS/, name a "
            "CSV file of paths and labels, or give --no-labels"
        )
    such = listed(f"{one.name} ({one.reason})" for one in left_out)
    return f"{root}: holds no image but {such}; name a folder of class folders, a Parquet file or a CSV file"


def _refuse_splits(root: Path, classes: set[str]) -> None:
    if len(classes) > 1 and {name.lower() for name in classes} <= _SPLITS:
        one = root / min(classes)
        raise RequestError(f"{root}: holds the splits {listed(sorted(classes))}, not classes; name one, such as {one}")
    if len(classes) == 1 and {name.lower() for name in classes} <= _SPLITS:
        one = root / min(classes)
        raise RequestError(f"{root}: holds only the split {min(classes)}; name {one}, whose folders are the classes")
