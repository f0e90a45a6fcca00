"""A CSV file of paths and labels, with a header. Relative paths start from the folder of the file.

path,label                    commas, semicolons or tabs
cat/0001.jpg,cat              a label is a number or a name
"""

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed, one_line
from smoothcert.pipeline.pack.listing import LeftOut, Listing, Reason, keys_of

_PATHS = ("path", "file_name", "filename", "file", "image", "image_path", "filepath", "img")
_LABELS = ("label", "labels", "class", "class_name", "cls", "target", "category", "synset")


class _Line(NamedTuple):
    number: int
    path: str
    label: str | None


def list_csv(file: Path, *, image: str | None, label: str | None, labelled: bool) -> Listing:
    """List the images that a CSV file names.

    Args:
        file: the file.
        image, label: names of columns; None for the usual ones.
        labelled: whether to read labels.
    Raises:
        RequestError: the file cannot be read, has no such column, or names no image.
    """
    base, left_out, lines, digest = file.absolute().parent, [], list[_Line](), hashlib.sha256()
    for line in _lines(file, image, label, labelled=labelled):
        try:
            status = (base / line.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            left_out.append(LeftOut(f"{file.name} line {line.number}", Reason.missing, line.path))
            continue
        if not status.st_size:
            left_out.append(LeftOut(f"{file.name} line {line.number}", Reason.empty, line.path))
            continue
        digest.update(f"{line.path}\0{status.st_size}\0{status.st_mtime_ns}\0{line.label}\n".encode())
        lines.append(line)
    if not lines:
        such = listed(f"{one.detail} ({one.reason})" for one in left_out) or "no line below its header"
        raise RequestError(f"{file}: names no image that is there but {such}; relative paths start from {base}")
    kept, keys = [], []
    for line, key in zip(lines, keys_of([_within(base, line.path) for line in lines]), strict=True):
        if key is None:
            left_out.append(LeftOut(f"{file.name} line {line.number}", Reason.repeated, line.path))
        else:
            kept.append(line)
            keys.append(key)
    return Listing(
        names=[line.path for line in kept],
        keys=keys,
        labels=[line.label for line in kept],
        class_names=None,
        left_out=tuple(left_out),
        fingerprint=digest.hexdigest(),
        read=lambda number: (base / kept[number].path).read_bytes(),
        what_names_classes="labels",
    )


def _within(base: Path, path: str) -> str:
    """A path relative to a folder; outside of it, the whole path."""
    whole = os.path.normpath(base / path)
    return whole.removeprefix(f"{os.path.normpath(base)}/").removeprefix("/")


def _lines(file: Path, image: str | None, label: str | None, *, labelled: bool) -> Iterator[_Line]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            reader = csv.DictReader(text, delimiter=max(",;\t", key=first.count), strict=True)
            columns = [name for name in reader.fieldnames or () if name]
            path_column = _column(file, columns, _PATHS, image, "image")
            label_column = _column(file, columns, _LABELS, label, "label") if labelled else None
            for row in reader:
                path, named = (row[path_column] or "").strip(), row[label_column] if label_column else None
                if path:
                    yield _Line(reader.line_num, path, (named or "").strip() or None)
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise RequestError(f"{file}: cannot be read as CSV ({reason}); write it as UTF-8 text with a header") from None


def _column(file: Path, columns: Sequence[str], usual: Sequence[str], chosen: str | None, what: str) -> str:
    lower = {name.strip().lower(): name for name in reversed(columns)}
    if chosen is not None:
        found = chosen if chosen in columns else None
    else:
        found = next((lower[name] for name in usual if name in lower), None)
    if found is None:
        otherwise = ", or give --no-labels" if what == "label" else ""
        wanted = chosen or " or ".join(usual)
        raise RequestError(
            f"{file}: its header has no column {wanted}; name one with --{what}{otherwise}; the columns: "
            f"{listed(columns)}"
        )
    return found
