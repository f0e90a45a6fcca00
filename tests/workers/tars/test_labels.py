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
def test_a_label_member_holds_a_class_number(
    tmp_path: Path, text: bytes | None, label: int | None, says: str | None
) -> None:
    """Any other text is an error of the row, which keeps its image."""
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
def test_a_json_field_holds_a_class_number(
    tmp_path: Path, text: bytes | None, label: int | None, says: str | None
) -> None:
    """With `json:FIELD` the label is the whole number in that field; anything else is an error of the row."""
    members = [("a.png", png())] + ([] if text is None else [("a.json", text)])
    (sample,) = _read(write_tar(tmp_path, tar_of(members)), label="json:y")
    assert sample.label == label
    assert sample.label_error is None if says is None else says in str(sample.label_error)


def test_a_job_without_labels_has_no_label_errors(tmp_path: Path) -> None:
    """Whatever members a sample has."""
    (sample,) = _read(write_tar(tmp_path, tar_of([("a.png", png()), ("a.cls", b"cat")])), label=None)
    assert (sample.label, sample.label_error) == (None, None)


@pytest.mark.parametrize(
    ("label", "first_label", "found"), [(0, 0, 0), (9, 0, 9), (10, 1, 9), (1, 1, 0), (10, 0, None), (0, 1, None)]
)
def test_the_lowest_label_is_class_0(label: int, first_label: int, found: int | None) -> None:
    """A label outside the classes is an error that shows the label as the tar has it."""
    number, error = label_of({"cls": str(label).encode()}, images_field(first_label=first_label), 10)
    assert number == found
    assert error == (
        None
        if found is not None
        else f"label {label} is not one of the 10 classes ({first_label} to {first_label + 9})"
    )


NAMES = (*(f"n{number:08d}" for number in range(CLASSES - 1)), "größer")


@pytest.mark.parametrize(
    ("text", "field", "label", "says"),
    [
        (b"n00000003", "", 3, None),
        (b"\xef\xbb\xbf n00000000\r\n", "", 0, None),
        ("größer".encode(), "", 9, None),
        (b'{"synset": "n00000008"}', ":synset", 8, None),
        (b"n02123045", "", None, "label 'n02123045' is not one of images.label_names"),
        (b"3", "", None, "label '3' is not one of images.label_names"),
        (b'{"synset": 3}', ":synset", None, "the label is no name"),
        (b'{"other": 3}', ":synset", None, "label 'synset' is not one of"),
        (b"\xff\xfe", "", None, "the label is no name"),
    ],
)
def test_a_label_may_be_a_name(tmp_path: Path, text: bytes, field: str, label: int | None, says: str | None) -> None:
    """Its class is its place in the list."""
    tar = write_tar(tmp_path, tar_of([("a.png", png()), ("a.json" if field else "a.cls", text)]))
    (sample,) = _read(tar, label="json" + field if field else "cls", label_names=NAMES)
    assert sample.label == label
    assert sample.label_error is None if says is None else says in str(sample.label_error)
