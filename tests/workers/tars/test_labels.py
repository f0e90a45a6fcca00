"""A label member gives a class, or the row says what is wrong with it."""

from pathlib import Path

import pytest

from smoothcert.workers.tars.labels import label_of
from smoothcert.workers.tars.shard_reader import Sample, read_samples
from tests.helpers.tars import images_field, png, tar_of, write_tar

CLASSES = 10


def _read(tar: Path, **fields: object) -> list[Sample]:
    return list(read_samples(tar, images_field(**fields), classes=CLASSES))


@pytest.mark.parametrize(
    ("text", "label", "says"),
    [
        (b"7", 7, None),
        (b" 7\n", 7, None),
        (b"\xef\xbb\xbf7\r\n", 7, None),  # of Notepad
        (b"0", 0, None),
        (b"9", 9, None),
        (b"10", None, "label 10 is not one of the 10 classes"),
        (b"-1", None, "label -1 is not one of the 10 classes"),
        (b"cat", None, ".cls is no class index"),
        (b"1.5", None, ".cls is no class index"),
        (b"1.0", None, ".cls is no class index"),
        (b"n01440764", None, ".cls is no class index"),
        (b"1_0", None, ".cls is no class index"),
        ("\u0663".encode(), None, ".cls is no class index"),
        (b"", None, ".cls is no class index"),
        (b"\xff\xfe", None, ".cls is no class index"),
        (None, None, "no member .cls"),
    ],
)
def test_label_of_a_member(tmp_path: Path, text: bytes | None, label: int | None, says: str | None) -> None:
    """A label member gives a class index, or a row that says what is wrong with it; the image stays."""
    members = [("a.png", png())] + ([] if text is None else [("a.cls", text)])
    (sample,) = _read(write_tar(tmp_path, tar_of(members)))
    assert (sample.label, sample.image) == (label, png())
    assert sample.label_error is None if says is None else says in str(sample.label_error)


@pytest.mark.parametrize(
    ("text", "label", "says"),
    [
        (b'{"y": 3}', 3, None),
        (b'{"y": "3"}', 3, None),
        (b'{"y": 3.0}', None, "no whole number"),
        (b'{"y": true}', None, "no whole number"),
        (b'{"y": null}', None, "no whole number"),
        (b'{"y": [3]}', None, "no whole number"),
        (b'{"z": 3}', None, "json:y is no class index"),
        (b"[3]", None, "json:y is no class index"),
        (b"{", None, "json:y is no class index"),
        (b'{"y": 10}', None, "label 10 is not one of the 10 classes"),
        (None, None, "no member .json"),
    ],
)
def test_label_of_a_json_field(tmp_path: Path, text: bytes | None, label: int | None, says: str | None) -> None:
    """`json:FIELD` gives the whole number in that field, or a row that says what is wrong with it."""
    members = [("a.png", png())] + ([] if text is None else [("a.json", text)])
    (sample,) = _read(write_tar(tmp_path, tar_of(members)), label="json:y")
    assert sample.label == label
    assert sample.label_error is None if says is None else says in str(sample.label_error)


def test_null_label_is_no_error(tmp_path: Path) -> None:
    """With label null a sample has neither label nor error, whatever members it has."""
    (sample,) = _read(write_tar(tmp_path, tar_of([("a.png", png()), ("a.cls", b"cat")])), label=None)
    assert (sample.label, sample.label_error) == (None, None)


@pytest.mark.parametrize(
    ("label", "first_label", "found"), [(0, 0, 0), (9, 0, 9), (10, 1, 9), (1, 1, 0), (10, 0, None), (0, 1, None)]
)
def test_first_label(label: int, first_label: int, found: int | None) -> None:
    """The lowest label is class 0; what lies outside is an error that names the label as it stands there."""
    number, error = label_of({"cls": str(label).encode()}, images_field(first_label=first_label), 10)
    assert number == found
    assert error == (
        None
        if found is not None
        else f"label {label} is not one of the 10 classes ({first_label} to {first_label + 9})"
    )
