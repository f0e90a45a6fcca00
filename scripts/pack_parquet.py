"""Pack Parquet files of images into WebDataset tars.

python scripts/pack_parquet.py test.parquet data/cifar10-test [--images-per-tar 1000] [--shuffle SEED]
python scripts/pack_parquet.py train-00000-of-00002.parquet train-00001-of-00002.parquet data/train
python scripts/pack_parquet.py a_folder_of_them data/train

Images are bytes of image files: a binary column, or a struct with a binary field `bytes`, as on the Hugging Face hub.
Labels are class numbers. Without a column `key` or `__key__`, the key of a sample is its row number. With --shuffle,
each tar holds a random sample of the images, as a training set needs if some of its tars are held out.
"""

import argparse
import io
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.manifests.names import listed, one_line
from smoothcert.workers.storage.disk import reason_of, remedy_for

_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp")
_LABELS = ("label", "labels", "cls", "class", "target", "fine_label")
_KEYS = ("key", "__key__")
_SUFFIXES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}
_PART = re.compile(r"-\d+-of-\d+.*|(?:^|[-_])\d+$")  # the end of a file name that numbers it among several


class PackError(Exception):
    """An error that is printed as one line."""


class Columns(NamedTuple):
    """Names of columns; None for row numbers as keys, and for no labels."""

    image: str
    label: str | None
    key: str | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path, nargs="+", help="files, or a folder of them")
    parser.add_argument("folder", type=Path, help="where the tars go")
    parser.add_argument("--images-per-tar", type=_positive, default=1000)
    parser.add_argument("--shuffle", type=int, metavar="SEED")
    parser.add_argument("--image", metavar="COLUMN", help=f"default: the first of {', '.join(_IMAGES)}")
    parser.add_argument("--label", metavar="COLUMN", help=f"default: the first of {', '.join(_LABELS)}")
    parser.add_argument("--no-labels", action="store_true", help="pack the images alone")
    arguments = parser.parse_intermixed_args()
    try:
        files = _files_of(arguments.parquet)
        columns = _choose(files, arguments.image, arguments.label, labelled=not arguments.no_labels)
        print(_pack(files, columns, arguments.folder, arguments.images_per_tar, arguments.shuffle))
    except (PackError, OSError, pa.ArrowException) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _files_of(given: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in given:
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found:
            there = listed(sorted(child.name + "/" * child.is_dir() for child in path.iterdir())) or "nothing"
            raise PackError(f"{path} holds no *.parquet but {there}; name files, or a folder of them")
        if len(splits := sorted({_stem(file) for file in found})) > 1:
            raise PackError(f"{path} holds files of several splits: {', '.join(splits)}; name those of one")
        files += found
    for file in files:
        try:
            pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise PackError(f"{file} cannot be read as Parquet: {error}; correct the name, or fetch it again") from None
    return files


def _stem(file: Path) -> str:
    return _PART.sub("", file.stem)


def _choose(files: Sequence[Path], image: str | None, label: str | None, *, labelled: bool) -> Columns:
    """The columns to pack, which every file has."""
    schemas = [pq.read_schema(file) for file in files]
    schema = schemas[0]
    columns = Columns(
        _column(schema, _IMAGES, image, "image", _is_image),
        _column(schema, _LABELS, label, "label", pa.types.is_integer) if labelled else None,
        next((name for name in _KEYS if name in schema.names), None),
    )
    for file, other in zip(files, schemas, strict=True):
        for name in filter(None, columns):
            if name not in other.names or other.field(name).type != schema.field(name).type:
                raise PackError(f"{file}: column {name} is not that of {files[0]}; pack files of one data set")
    return columns


def _column(
    schema: pa.Schema, usual: Sequence[str], chosen: str | None, what: str, fits: Callable[[pa.DataType], bool]
) -> str:
    """The chosen column, or the first with a usual name; its type must fit."""
    there = {field.name: field.type for field in schema}
    names = [chosen] if chosen else usual
    name = next((name for name in names if name in there and fits(there[name])), None)
    if name is None:
        wanted = {"image": "bytes of image files", "label": "class numbers"}[what]
        otherwise = ", or give --no-labels" if what == "label" else ""
        columns = ", ".join(f"{name} ({kind})" for name, kind in there.items())
        raise PackError(
            f"no column {' or '.join(names)} holds {wanted}; name one with --{what}{otherwise}; the columns: {columns}"
        )
    return name


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _pack(files: Sequence[Path], columns: Columns, folder: Path, images_per_tar: int, seed: int | None) -> str:
    """Write the tars, and return a line that says what is in them."""
    name = files[0].stem if len(files) == 1 else _stem(files[0]) or folder.name
    tars = images = unlabelled = 0
    for tars, batch in enumerate(_batches(_tables(files, columns, seed), images_per_tar), 1):
        tar = folder / f"{name}-{tars - 1:03d}.tar"
        rows = batch.to_pylist()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(tar, rows, columns)
        except OSError as error:
            remedy = remedy_for(error, folder, "name another folder")
            raise PackError(f"{tar} cannot be written: {reason_of(error)}; {remedy}") from None
        images, unlabelled = images + len(rows), unlabelled + sum(row["label"] is None for row in rows)
    if not images:
        raise PackError(f"{files[0]} has no rows; name a file with images")
    missing = f", {unlabelled:,} of them without label" if unlabelled and columns.label else ""
    labels = f"labels of {columns.label}" if columns.label else "no labels"
    return f"{images:,} images of {columns.image}, {labels}{missing}: {tars:,} tars in {folder}"


def _tables(files: Sequence[Path], columns: Columns, seed: int | None) -> Iterator[pa.Table]:
    """Rows as key, label, image; shuffled all at once, else as they come."""
    tables = _read(files, columns)
    if seed is None:
        yield from tables
        return
    if whole := list(tables):
        table = pa.concat_tables(whole)
        yield table.take(np.random.default_rng(seed).permutation(len(table)))


def _read(files: Sequence[Path], columns: Columns) -> Iterator[pa.Table]:
    start = 0
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(1000, columns=[name for name in columns if name]):
                image = batch[columns.image]
                image = pc.struct_field(image, "bytes") if pa.types.is_struct(image.type) else image
                if image.null_count:
                    row = start + pc.index(pc.is_null(image), True).as_py()
                    raise PackError(f"{file}: row {row} has no bytes in {columns.image}; pack files with the images in")
                keys = (
                    batch[columns.key] if columns.key else pa.array(f"{start + row:08d}" for row in range(len(batch)))
                )
                labels = (batch[columns.label] if columns.label else pa.nulls(len(batch))).cast(pa.int64())
                # Large offsets: a shuffled set may have more than 2 GiB.
                yield pa.table(
                    {
                        "key": keys.cast(pa.large_string()),
                        "label": pc.if_else(pc.less(labels, 0), None, labels),  # on the hub, -1 means no label
                        "image": image.cast(pa.large_binary()),
                    }
                )
                start += len(batch)


def _batches(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Tables of `size` rows each; the last may be shorter."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while sum(map(len, waiting)) >= size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size)
            waiting = [whole.slice(size)]
    if rest := sum(map(len, waiting)):
        yield pa.concat_tables(waiting).slice(0, rest)


def _write(path: Path, rows: Sequence[dict[str, object]], columns: Columns) -> None:
    aside = path.with_suffix(".part")
    try:
        with tarfile.open(aside, "w") as tar:
            for row in rows:
                _add(tar, f"{row['key']}.{_suffix(row['image'], columns.image)}", row["image"])
                if row["label"] is not None:
                    _add(tar, f"{row['key']}.cls", str(row["label"]).encode())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _suffix(image: bytes, column: str) -> str:
    return column if column in _IMAGES[2:] else next((_SUFFIXES[m] for m in _SUFFIXES if image.startswith(m)), "jpg")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    sys.exit(main())
