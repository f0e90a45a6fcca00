"""Every image has a key of its own that readers of tars take as it is."""

import os
from pathlib import Path

import pytest

from smoothcert.pipeline.pack.listing import as_key, in_utf8, key_of, keys_of
from smoothcert.workers.tars.tar_headers import read_tar
from tests.helpers.tars import images_field, tar_of, write_tar


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("cat/0001.jpg", "cat/0001"),
        ("cat/IMG.2024.01.jpg", "cat/IMG_2024_01"),
        ("v1.2/a.png", "v1.2/a"),  # dots of folders stay
        ("v1.2/a", "v1.2/a"),
        ("__x__/a.png", "_x__/a"),  # webdataset skips names that begin with __NAME__
        ("/data/a.png", "data/a"),
        (".png", "_png"),
        ("ü/é.jpg", "ü/é"),
    ],
)
def test_a_key_is_the_path_without_suffix(path: str, key: str, tmp_path: Path) -> None:
    """The tar's reader gives the image this key."""
    assert key_of(path) == key
    (image,) = read_tar(write_tar(tmp_path, tar_of([(f"{key}.png", b"x")])), images_field()).images
    assert image.key == key


def test_equal_names_with_other_suffixes_are_told_apart() -> None:
    """A path that comes twice has no second key."""
    paths = ["a/1.jpg", "a/1.png", "a/2.jpg", "b/1.jpg", "a/2.jpg"]
    assert list(keys_of(paths)) == ["a/1_jpg", "a/1_png", "a/2_jpg", "b/1", None]
    assert list(keys_of(["a.jpg", "a.png", "a_jpg.png"])) == [None, "a_png", "a_jpg"]


def test_a_key_that_is_given_keeps_its_name() -> None:
    """But for its dots."""
    assert as_key("n01440764/ILSVRC.1") == "n01440764/ILSVRC_1"


def test_bytes_that_are_no_text_are_escaped() -> None:
    """A tar with such a name would be refused."""
    assert in_utf8(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"
