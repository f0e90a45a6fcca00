"""The tar of `smoothcert demo`."""

import errno
import sys
import tarfile
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline import demo


def test_the_tar_holds_20_images_each_before_its_label(tmp_path: Path) -> None:
    """The label is the last number in the name of foolbox's file."""
    assert demo.pack_demo_images(tmp_path / "new") == tmp_path / "new"
    with tarfile.open(tmp_path / "new" / "demo-00.tar") as tar:
        names = tar.getnames()
        labels = [tar.extractfile(name).read().decode() for name in names[1::2]]
    assert len(names) == 40
    assert [name.removesuffix(".png") for name in names[::2]] == [name.removesuffix(".cls") for name in names[1::2]]
    assert labels == [name.removesuffix(".cls").rpartition("_")[2] for name in names[1::2]]


def test_an_existing_tar_stays(tmp_path: Path) -> None:
    """A second demo packs nothing, so its run is the first one's."""
    tar = tmp_path / "demo-00.tar"
    tar.write_bytes(b"mine")
    demo.pack_demo_images(tmp_path)
    assert tar.read_bytes() == b"mine"


def test_without_foolbox_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left in the folder."""
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(RequestError, match=r"pip install 'smoothcert\[demo\]'"):
        demo.pack_demo_images(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy, and no half tar."""

    def fill(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tarfile.TarFile.addfile", fill)
    with pytest.raises(RequestError, match=r"cannot be written: No space left .*; make room in .*--folder$"):
        demo.pack_demo_images(tmp_path)
    assert not list(tmp_path.iterdir())
