"""The same few photos as class folders, as a CSV file of paths, and as Parquet files of the hub's form."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from smoothcert.pipeline.pack.listing import Listing
from smoothcert.pipeline.pack.sources import Choice, list_source

CLASSES = ("cat", "dog", "owl")


def photo(seed: int, kind: str = "JPEG", side: int = 8) -> bytes:
    """A small image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def in_folders(root: Path, count: int, classes: Sequence[str] = CLASSES, side: int = 8) -> Path:
    """ROOT/CLASS/NNNN.jpg; every third is a PNG file with that name."""
    for number in range(count):
        path = root / classes[number % len(classes)] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number, "JPEG" if number % 3 else "PNG", side))
    return root


def paths_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))


def as_csv(root: Path, file: Path) -> Path:
    """Their paths and the names of their folders; root must lie beside the file."""
    with file.open("w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(("path", "label"))
        writer.writerows((f"{root.name}/{path}", path.partition("/")[0]) for path in paths_in(root))
    return file


def as_parquet(root: Path, folder: Path, files: int = 2, classes: Sequence[str] = CLASSES) -> Path:
    """As `datasets` writes an Image and a ClassLabel feature, with paths."""
    paths = paths_in(root)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": (root / path).read_bytes(), "path": f"{root.name}/{path}"} for path in paths]
    labels = [classes.index(path.partition("/")[0]) for path in paths]
    features = {"label": {"names": list(classes), "_type": "ClassLabel"}}
    table = pa.table({"image": pa.array(images, kind), "label": labels}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    folder.mkdir()
    size = -(-len(table) // files)
    for number in range(files):
        part = table.slice(number * size, size)
        pq.write_table(part, folder / f"train-{number:05d}-of-{files:05d}.parquet", row_group_size=4)
    return folder


def listing_of(source: Path, **choice: object) -> Listing:
    """What `smoothcert pack` sees in a source; copies of images would lie beside it."""
    made = Choice()._replace(**choice)
    return list_source(str(source), made, source.parent / "copies", shuffled=True)
