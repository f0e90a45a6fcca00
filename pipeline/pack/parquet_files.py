"""Parquet files of images, in the form of the Hugging Face Hub or with plain columns.

    image   struct with the field `bytes`, or the bytes themselves
    label   class numbers, or names; the names of a ClassLabel lie in the metadata of the file
    key     optional; otherwise the keys are the images' paths if these differ, else the numbers of the rows

Parquet has no access to single rows. So the images of a file are first copied to an Arrow file beside the tars, from
which they can be read in any order. In the order of the source, only one such copy exists at a time.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed, one_line
from smoothcert.pipeline.pack.listing import LeftOut, Listing, Reason, as_key, keys_of

_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "bytes")
_LABELS = ("label", "labels", "cls", "class", "target", "fine_label")
_KEYS = ("key", "__key__")
_PART = re.compile(r"-\d+-of-\d+.*|(?:^|[-_])\d+$")  # the end of a file name that numbers it among several
_ROWS_AT_ONCE = 100


class _Columns(NamedTuple):
    image: str
    label: str | None
    key: str | None


def list_parquet(
    source: Path,
    copies: Path,
    *,
    image: str | None,
    label: str | None,
    labelled: bool,
    split: str | None,
    shuffled: bool,
) -> Listing:
    """List the images of Parquet files.

    Args:
        source: a file, or a folder of files.
        copies: a folder for the copies of the images; it need not exist yet.
        image, label: names of columns; None for the usual ones.
        labelled: whether to read labels.
        split: the files of a folder to take if it holds several splits: `train` for train-00000-of-00002.parquet.
        shuffled: whether images will be read in any order.
    Raises:
        RequestError: the files cannot be read, are of several splits, or have no such columns.
    """
    files = _files_of(source, split)
    columns = _choose(files, image, label, labelled=labelled)
    wanted = [name for name in (columns.label, columns.key) if name]
    labels, keys, numbers = list[int | str | None](), list[str](), list[tuple[int, int]]()
    digest = hashlib.sha256()
    for number, file in enumerate(files):
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        table = pq.read_table(file, columns=wanted) if wanted else None
        rows = pq.read_metadata(file).num_rows
        numbers += ((number, row) for row in range(rows))
        labels += (
            [None] * rows if columns.label is None or table is None else map(_label, table[columns.label].to_pylist())
        )
        if columns.key and table is not None:
            for row, key in enumerate(table[columns.key].to_pylist(), len(keys)):
                keys.append(f"{row:08d}" if key in (None, "") else as_key(str(key)))
    if not numbers:
        raise RequestError(f"{files[0]}: has no rows; name a file with images")
    if not columns.key:
        keys += _keys_by_path(files, columns.image) or [f"{row:08d}" for row in range(len(numbers))]
    kept, left_out = _once(keys, lambda position: f"{files[numbers[position][0]].name} row {numbers[position][1]}")
    copied = _Copies(files, columns.image, copies, keep_all=shuffled)
    return Listing(
        names=[f"{files[numbers[one][0]].name} row {numbers[one][1]}" for one in kept],
        keys=[keys[one] for one in kept],
        labels=[labels[one] for one in kept],
        class_names=_class_names(files[0], columns.label),
        left_out=left_out,
        fingerprint=digest.hexdigest(),
        read=lambda one: copied.read(*numbers[kept[one]]),
        what_names_classes="labels",
    )


def _once(keys: Sequence[str], name_of: Callable[[int], str]) -> tuple[list[int], tuple[LeftOut, ...]]:
    """The positions whose key comes for the first time, and the others."""
    kept, left_out, used = [], [], set[str]()
    for position, key in enumerate(keys):
        if key in used:
            left_out.append(LeftOut(name_of(position), Reason.repeated, key))
        else:
            used.add(key)
            kept.append(position)
    return kept, tuple(left_out)


def _label(value: int | str | None) -> int | str | None:
    """On the hub, -1 means no label."""
    return None if value == "" or (isinstance(value, int) and value < 0) else value


def _files_of(source: Path, split: str | None) -> list[Path]:
    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    for file in files:
        try:
            pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise RequestError(
                f"{file}: cannot be read as Parquet ({one_line(error)}); correct the name, or fetch it again"
            ) from None
    splits = sorted({_split_of(file) for file in files})
    if split is not None:
        files = [file for file in files if _split_of(file) == split]
        if not files:
            raise RequestError(f"--split {split}: {source} holds no file of it; name one of {listed(splits)}")
    elif len(splits) > 1:
        raise RequestError(f"{source}: holds files of several splits; name one with --split: {listed(splits)}")
    return files


def _split_of(file: Path) -> str:
    return _PART.sub("", file.stem)


def _choose(files: Sequence[Path], image: str | None, label: str | None, *, labelled: bool) -> _Columns:
    """The columns to pack, which every file has."""
    schemas = [pq.read_schema(file) for file in files]
    schema = schemas[0]
    columns = _Columns(
        _column(files[0], schema, _IMAGES, image, "image", _is_image),
        _column(files[0], schema, _LABELS, label, "label", _is_label) if labelled else None,
        next((name for name in _KEYS if name in schema.names), None),
    )
    for file, other in zip(files, schemas, strict=True):
        for name in filter(None, columns):
            if name not in other.names or other.field(name).type != schema.field(name).type:
                raise RequestError(f"{file}: column {name} is not that of {files[0]}; pack files of one data set")
    return columns


def _column(
    file: Path,
    schema: pa.Schema,
    usual: Sequence[str],
    chosen: str | None,
    what: str,
    fits: Callable[[pa.DataType], bool],
) -> str:
    """The chosen column, or the first with a usual name; its type must fit."""
    there = {field.name: field.type for field in schema}
    names = [chosen] if chosen else usual
    name = next((name for name in names if name in there and fits(there[name])), None)
    if name is None:
        wanted = {"image": "bytes of image files", "label": "class numbers or names"}[what]
        otherwise = ", or give --no-labels" if what == "label" else ""
        columns = ", ".join(f"{name} ({kind})" for name, kind in there.items())
        raise RequestError(
            f"{file}: no column {' or '.join(names)} holds {wanted}; name one with --{what}{otherwise}; the columns: "
            f"{columns}"
        )
    return name


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _keys_by_path(files: Sequence[Path], image: str) -> list[str] | None:
    """Keys from the paths of the hub's form; None unless every image has one of its own."""
    kind = pq.read_schema(files[0]).field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return None
    paths = list[str | None]()
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(columns=[f"{image}.path"]):
                paths += pc.struct_field(batch[image], "path").to_pylist()
    if len(set(paths)) < len(paths) or not all(paths):
        return None
    keys = list(keys_of([str(path).removeprefix("./") for path in paths]))
    return None if None in keys else [str(key) for key in keys]


def _class_names(file: Path, label: str | None) -> tuple[str, ...] | None:
    """The names of a ClassLabel, which `datasets` writes into the metadata of a file."""
    try:
        described = json.loads((pq.read_schema(file).metadata or {})[b"huggingface"])
        names = described["info"]["features"][label]["names"]
        names = [names[str(number)] for number in range(len(names))] if isinstance(names, dict) else names
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names))


class _Copies:
    """Copies of the images of Parquet files, from which each can be read on its own.

    Args:
        files: the Parquet files.
        image: the column.
        folder: holds the copies.
        keep_all: whether to keep the copies of earlier files.
    """

    def __init__(self, files: Sequence[Path], image: str, folder: Path, *, keep_all: bool) -> None:
        self._files, self._image, self._folder, self._keep_all = files, image, folder, keep_all
        self._open: dict[int, tuple[pa.RecordBatchFileReader, np.ndarray[tuple[int], np.dtype[np.int64]]]] = {}

    def read(self, number: int, row: int) -> bytes | None:
        """The image in a row of a file."""
        if number not in self._open:
            self._copy(number)
        reader, starts = self._open[number]
        batch = int(np.searchsorted(starts, row, side="right")) - 1
        found: bytes | None = reader.get_batch(batch)["image"][row - int(starts[batch])].as_py()
        return found

    def _copy(self, number: int) -> None:
        if not self._keep_all:
            for earlier in self._open:
                self._path(earlier).unlink(missing_ok=True)
            self._open.clear()
        path = self._path(number)
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".part")
            with (
                pa.OSFile(str(aside), "wb") as sink,
                pa.ipc.new_file(sink, pa.schema({"image": pa.binary()})) as writer,
            ):
                for images in self._images(number):
                    writer.write_batch(pa.record_batch({"image": images.cast(pa.binary())}))
            aside.replace(path)
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        sizes = [reader.get_batch(one).num_rows for one in range(reader.num_record_batches)]
        self._open[number] = reader, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)[:-1]

    def _images(self, number: int) -> Iterator[pa.Array]:
        with pq.ParquetFile(self._files[number]) as parquet:
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=[self._image]):
                image = batch[self._image]
                yield pc.struct_field(image, "bytes") if pa.types.is_struct(image.type) else image

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.arrow"
