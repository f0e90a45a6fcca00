"""A path is a folder, a Parquet file or a CSV file; anything else is refused with what it is."""

import gzip
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from tests.helpers.photos import as_csv, as_parquet, in_folders, listing_of
from tests.helpers.tars import labelled, tar_of


def test_the_three_kinds(tmp_path: Path) -> None:
    """Each lists the same images."""
    root = in_folders(tmp_path / "photos", 5)
    hub = as_parquet(root, tmp_path / "hub", files=1)
    sources = [root, as_csv(root, tmp_path / "list.csv"), hub, next(hub.iterdir())]
    images = [sorted(str(one.read(number)) for number in range(5)) for one in map(listing_of, sources)]
    assert images[1:] == images[:1] * 3


@pytest.mark.parametrize(
    ("name", "content", "choice", "says"),
    [
        ("nowhere", None, {}, "nowhere: cannot be read (No such file or directory)"),
        ("x.zip", b"PK\x03\x04", {}, "is no source of images: the file is a zip archive; name a folder of class"),
        ("x.csv.gz", gzip.compress(b"path,label", mtime=0), {}, "the file is a gzip file; unpack it; name a folder"),
        ("folder/00.tar", tar_of(labelled(1)), {}, "holds tars (00.tar); a job reads them as they are: images.shards:"),
        ("folder/cat/a.jpg", b"x", {"split": "train"}, "--split train: is for Parquet files; name the folder"),
        ("folder/cat/a.jpg", b"x", {"label": "y"}, "folders have none; remove them"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, name: str, content: bytes | None, choice: dict[str, object], says: str
) -> None:
    """In one line that says what to do."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RequestError) as error:
        listing_of(tmp_path / name.partition("/")[0], **choice)
    assert says in str(error.value)


def test_urls_are_refused(tmp_path: Path) -> None:
    """Sources are read from this machine."""
    from smoothcert.pipeline.pack.sources import Choice, list_source

    with pytest.raises(RequestError, match="s3://bucket/x: cannot be read from there; fetch it"):
        list_source("s3://bucket/x", Choice(), tmp_path, shuffled=True)
