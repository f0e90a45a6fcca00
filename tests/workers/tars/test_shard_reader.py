"""A whole tar gives each image once, with its own bytes, label and place."""

import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.workers.tars.shard_reader import Sample, read_samples
from tests.helpers.tars import images_field, labelled, png, tar_of, write_tar

CLASSES = 10
NAMES = st.text(string.ascii_letters + string.digits + "-_ äß", min_size=1, max_size=12).filter(
    lambda name: not name.startswith("__")
)
KEYS = st.builds("/".join, st.lists(NAMES, min_size=1, max_size=3))
SUFFIXES = st.sampled_from(["jpg", "jpeg", "png", "webp", "JPG"])
SAMPLES = st.lists(
    st.tuples(KEYS, SUFFIXES, st.binary(max_size=1500), st.integers(0, CLASSES - 1), st.booleans()),
    min_size=1,
    max_size=8,
    unique_by=lambda sample: sample[0],
)


def _read(tar: Path, limit: int | None = None, **fields: object) -> list[Sample]:
    return list(read_samples(tar, images_field(**fields), classes=CLASSES, limit=limit))


@settings(max_examples=150)
@given(SAMPLES, st.booleans())
def test_what_is_packed_is_read(samples: list[tuple[str, str, bytes, int, bool]], padded: bool) -> None:
    """Each key once and in order, with its bytes, its label and the place of its bytes."""
    members = []
    for key, suffix, image, label, label_first in samples:
        pair = [(f"{key}.{suffix}", image), (f"{key}.cls", str(label).encode())]
        members += pair[::-1] if label_first else pair
    content = tar_of(members, padded=padded)
    with tempfile.TemporaryDirectory() as folder:
        read = _read(write_tar(Path(folder), content))
    assert [(one.key, one.image, one.label, one.label_error) for one in read] == [
        (key, image, label, None) for key, _, image, label, _ in samples
    ]
    assert [one.index for one in read] == list(range(len(samples)))
    assert all(content[one.image_offset :][: len(one.image)] == one.image for one in read)


@pytest.mark.parametrize(("limit", "read"), [(None, 5), (1, 1), (4, 4), (5, 5), (6, 5)])
def test_a_limit_reads_the_first_samples(tmp_path: Path, limit: int | None, read: int) -> None:
    """All samples, if the tar has fewer."""
    tar = write_tar(tmp_path, tar_of(labelled(5)))
    assert [sample.key for sample in _read(tar, limit)] == [f"{index:04d}" for index in range(read)]


def test_samples_without_image_are_no_rows(tmp_path: Path) -> None:
    """A sample without an image is left out, and index counts images alone."""
    members = [
        ("a.txt", b"hi"),
        ("b.png", png()),
        ("b.cls", b"2"),
        ("c.cls", b"1"),
        ("d.png", png(seed=1)),
        ("d.cls", b"3"),
    ]
    samples = _read(write_tar(tmp_path, tar_of(members)))
    assert [(sample.key, sample.index, sample.label) for sample in samples] == [("b", 0, 2), ("d", 1, 3)]
