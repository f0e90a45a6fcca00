"""Parquet files give their images row by row, in any order, whatever the form of their columns."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.pack.listing import Listing
from smoothcert.pipeline.pack.parquet_files import list_parquet
from tests.helpers.photos import CLASSES, as_parquet, in_folders
from tests.helpers.tars import png

HUB = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def hub_images(count: int, start: int = 0, *, paths: bool = False) -> pa.Array:
    rows = range(start, start + count)
    return pa.array([{"bytes": png(seed=row), "path": f"{row}.png" if paths else None} for row in rows], HUB)


def listed(source: Path, **changes: Any) -> Listing:
    options: dict[str, Any] = {"image": None, "label": None, "labelled": True, "split": None, "shuffled": True}
    return list_parquet(source, source.parent / "copies", **options | changes)


@pytest.mark.parametrize("shuffled", [True, False])
def test_the_hub_s_form(tmp_path: Path, *, shuffled: bool) -> None:
    """Images of two files in any order or in theirs; names of classes from the metadata; keys from the paths."""
    root = in_folders(tmp_path / "photos", 25)
    listing = listed(as_parquet(root, tmp_path / "hub"), shuffled=shuffled)
    assert listing.class_names == CLASSES
    order = np.random.default_rng(0).permutation(25) if shuffled else range(25)
    for one in order:
        path = root.parent / f"{listing.keys[one]}.jpg"
        assert listing.read(int(one)) == path.read_bytes()
        assert CLASSES[listing.labels[one]] == path.parent.name
    assert len(os.listdir(tmp_path / "copies")) == (2 if shuffled else 1)  # noqa: PTH208


@pytest.mark.parametrize(
    ("columns", "keys", "labels"),
    [
        ({"img": hub_images(2), "fine_label": [4, 3]}, ["00000000", "00000001"], [4, 3]),
        ({"image": hub_images(2, paths=True), "labels": ["owl", "cat"]}, ["0", "1"], ["owl", "cat"]),
        ({"jpg": [png(seed=0), png(seed=1)], "label": [1, 0], "key": ["x.1", "y"]}, ["x_1", "y"], [1, 0]),
        ({"image": hub_images(2), "label": pa.array([-1, None], pa.int64())}, ["00000000", "00000001"], [None, None]),
        (
            {"image": hub_images(2), "coarse_label": [9, 9], "label": pa.array(["a", "b"]).dictionary_encode()},
            ["00000000", "00000001"],
            ["a", "b"],
        ),
    ],
    ids=["img", "paths", "plain", "no label", "dictionary"],
)
def test_forms(tmp_path: Path, columns: dict[str, Any], keys: list[str], labels: list[Any]) -> None:
    """The usual names of columns; class numbers or names; -1 and null are no labels."""
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    listing = listed(tmp_path / "x.parquet")
    assert (list(listing.keys), list(listing.labels)) == (keys, labels)
    assert [listing.read(1), listing.read(0)] == [png(seed=1), png(seed=0)]


def test_rows_of_several_files_are_numbered_through(tmp_path: Path) -> None:
    """And a key that comes twice is left out."""
    folder = tmp_path / "data"
    folder.mkdir()
    for part in range(2):
        table = pa.table(
            {"image": hub_images(4, 4 * part), "label": list(range(4)), "key": ["a", "b", f"c{part}", None]}
        )
        pq.write_table(table, folder / f"train-0000{part}-of-00002.parquet")
    listing = listed(folder)
    assert list(listing.keys) == ["a", "b", "c0", "00000003", "c1", "00000007"]
    assert listing.read(5) == png(seed=7)
    assert [(one.name, one.detail) for one in listing.left_out] == [
        ("train-00001-of-00002.parquet row 0", "a"),
        ("train-00001-of-00002.parquet row 1", "b"),
    ]


def test_a_split_is_named(tmp_path: Path) -> None:
    """Files of two splits are not mixed unasked."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, start in (("train-00000-of-00001", 0), ("test-00000-of-00001", 3)):
        pq.write_table(pa.table({"image": hub_images(3, start), "label": [0, 1, 2]}), folder / f"{name}.parquet")
    with pytest.raises(RequestError, match="several splits; name one with --split: test, train"):
        listed(folder)
    assert listed(folder, split="test").read(0) == png(seed=3)
    with pytest.raises(RequestError, match=r"--split dev: .* holds no file of it; name one of test, train"):
        listed(folder, split="dev")


def test_a_row_without_image_has_no_bytes(tmp_path: Path) -> None:
    """It is left out when it is read."""
    images = pa.array([{"bytes": None, "path": "a.png"}, None, {"bytes": png(), "path": "b.png"}], HUB)
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2]}), tmp_path / "x.parquet")
    listing = listed(tmp_path / "x.parquet")
    assert [listing.read(row) for row in range(3)] == [None, None, png()]


@pytest.mark.parametrize(
    ("columns", "changes", "says"),
    [
        ({"image": hub_images(1), "name": ["cat"]}, {}, "numbers or names; name one with --label, or give --no-labels"),
        ({"image": hub_images(1), "label": [0.5]}, {}, "label (double)"),
        ({"image": ["a.png"], "label": [0]}, {}, "bytes of image files; name one with --image"),
        ({"image": [[1, 2, 3]], "label": [0]}, {}, "image (list<element: int64>)"),
        ({"image": hub_images(1), "label": [0]}, {"label": "lable"}, "no column lable holds class numbers"),
        ({"image": hub_images(0), "label": pa.array([], pa.int64())}, {}, "has no rows"),
        (None, {}, "cannot be read as Parquet"),
    ],
)
def test_other_forms_are_one_line(
    tmp_path: Path, columns: dict[str, Any] | None, changes: dict[str, Any], says: str
) -> None:
    """What cannot be packed is told in a line with the columns that are there."""
    if columns is None:
        (tmp_path / "x.parquet").write_bytes(b"no Parquet at all")
    else:
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(RequestError) as error:
        listed(tmp_path / "x.parquet", **changes)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_two_data_sets_are_refused(tmp_path: Path) -> None:
    """A column of another type."""
    pq.write_table(pa.table({"image": hub_images(1), "label": [0]}), tmp_path / "x-0.parquet")
    pq.write_table(pa.table({"image": hub_images(1), "label": ["cat"]}), tmp_path / "x-1.parquet")
    with pytest.raises(RequestError, match="column label is not that of"):
        listed(tmp_path)
