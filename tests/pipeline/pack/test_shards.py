"""A tar holds the images as they are, as many as fit, and is the same byte by byte each time."""

import io
import tarfile
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.pack.classes import number_classes
from smoothcert.pipeline.pack.listing import Listing
from smoothcert.pipeline.pack.shards import Limits, Written, suffix_of, write_tar
from smoothcert.workers.tars.shard_reader import read_samples
from tests.helpers.photos import in_folders, listing_of, photo
from tests.helpers.tars import images_field


def written(listing: Listing, limits: Limits, position: int = 0) -> tuple[Written, bytes]:
    file = io.BytesIO()
    numbers = number_classes(listing, None).numbers
    found = write_tar(file, listing, numbers, range(len(listing.names)), position, limits, lambda *_: None)
    return found, file.getvalue()


def test_every_image_is_a_sample(tmp_path: Path) -> None:
    """Key, label and bytes, read as a job reads them; owner, mode and time are the same everywhere."""
    listing = listing_of(in_folders(tmp_path / "photos", 7))
    found, data = written(listing, Limits(None, None))
    (tmp_path / "x.tar").write_bytes(data)
    samples = list(read_samples(tmp_path / "x.tar", images_field(), classes=3))
    assert [(one.key, one.image) for one in samples] == [
        (key, listing.read(number)) for number, key in enumerate(listing.keys)
    ]
    assert [one.label for one in samples] == [0, 0, 0, 1, 1, 2, 2]
    assert (found.images, found.position, found.of_class) == (7, 7, {0: 3, 1: 2, 2: 2})
    assert found.suffixes == {"jpg", "png"}
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert {(one.mtime, one.uid, one.uname, one.mode) for one in tar} == {(0, 0, "bigdata", 0o444)}
    assert written(listing, Limits(None, None))[1] == data


@pytest.mark.parametrize("limits", [Limits(3, None), Limits(None, 10240), Limits(None, 1), Limits(4, 20480)])
def test_limits(tmp_path: Path, limits: Limits) -> None:
    """No tar holds more, none could hold the next image too, and none is empty."""
    root = in_folders(tmp_path / "photos", 20)
    long = root / "cat" / ("x" * 200 + ".jpg")  # needs a further header
    long.write_bytes(photo(99))
    listing, position, images = listing_of(root), 0, 0
    while position < len(listing.names):
        found, data = written(listing, limits, position)
        images += found.images
        assert 1 <= found.images <= (limits.images or 99)
        assert found.images == 1 or len(data) <= (limits.bytes or 10**9)
        if found.position < len(listing.names) and limits.bytes and found.images != limits.images:
            assert len(written(listing, Limits(found.images + 1, None), position)[1]) > limits.bytes
        position = found.position
    assert images == 21


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    """By its first bytes; it does not count as an image of the tar."""
    root = in_folders(tmp_path / "photos", 3)
    (root / "cat" / "page.jpg").write_bytes(b"<!DOCTYPE html><html>")
    (root / "cat" / "zeros.jpg").write_bytes(bytes(100))
    found, _ = written(listing_of(root), Limits(2, None))
    assert found.images == 2
    assert [(one.name, str(one.reason), one.detail) for one in found.left_out] == [
        ("cat/page.jpg", "no image by its content", "the file is an HTML page, perhaps the error page of a download"),
        ("cat/zeros.jpg", "no image by its content", "the file holds only zeros, perhaps after a copy that broke off"),
    ]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp"), ("TIFF", "tif"),
        ("PPM", "ppm"), ("JPEG2000", "jp2"), ("AVIF", None), ("ICO", None),
    ],
)  # fmt: skip
def test_a_suffix_follows_from_the_content(kind: str, suffix: str | None) -> None:
    """Oracle: files that Pillow writes; those that jobs do not read have none."""
    assert suffix_of(photo(0, kind, side=32)) == suffix


def test_an_image_that_vanished_ends_the_packing(tmp_path: Path) -> None:
    """It was listed, so leaving it out would give other tars than the first time."""
    listing = listing_of(in_folders(tmp_path / "photos", 3))
    (tmp_path / "photos" / "dog" / "0001.jpg").unlink()
    with pytest.raises(RunError, match=r"dog/0001.jpg: cannot be read .* restore it, and run the same command again"):
        written(listing, Limits(None, None))


def test_images_without_label_have_no_label_member(tmp_path: Path) -> None:
    """As `images.label: null` reads them."""
    listing = listing_of(in_folders(tmp_path / "photos", 2), labelled=False)
    data = written(listing, Limits(None, None))[1]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["cat/0000.png", "dog/0001.jpg"]
    assert number_classes(listing, None).numbers.tolist() == [-1, -1]
