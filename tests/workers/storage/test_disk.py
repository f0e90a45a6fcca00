"""An error of writing says which disk is full, or what else is wrong there."""

import errno
import os
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.workers.storage.disk import naming_a_full_disk, reason_of, remedy_for
from smoothcert.workers.storage.folder_store import FolderStore


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_error_names_the_full_disk(number: int) -> None:
    """With what the system says and another remedy. Other errors pass."""
    says = rf"^/a/b is full \({os.strerror(number)}\); make room there, or set C$"
    with pytest.raises(RunError, match=says), naming_a_full_disk("/a/b", "set C"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(PermissionError), naming_a_full_disk("/a/b", "set C"):
        raise PermissionError(errno.EACCES, "no")


def test_a_file_that_is_too_large_does_not_mean_a_full_disk() -> None:
    """`ulimit -f` and FAT32 refuse large files on an empty disk, so the error does not ask for room."""
    with pytest.raises(RunError) as error, naming_a_full_disk("/a/b", "set C"):
        raise OSError(errno.EFBIG, "File too large")
    assert (
        str(error.value)
        == "/a/b takes no file of this size (File too large); allow larger files (`ulimit -f`), or set C"
    )


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room in /a"),
        (errno.EDQUOT, "make room in /a"),
        (errno.EFBIG, "allow larger files (`ulimit -f`)"),
        (errno.EACCES, "make /a writable"),
        (errno.EROFS, "make /a writable"),
        (errno.EIO, ""),
    ],
)
def test_only_a_full_disk_needs_room(number: int, remedy: str, tmp_path: Path, monkeypatch) -> None:
    """Each error has its own remedy, also when a file is published."""
    either = f"{remedy}, or " if remedy else ""
    assert remedy_for(OSError(number, "no"), "/a", "take B") == f"{either}take B"

    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(RequestError) as error:
        FolderStore().publish(str(tmp_path), "x", b"x")
    assert f": no; {either}choose another output".replace("/a", str(tmp_path)) in str(error.value)


def test_an_error_without_text_still_has_a_reason() -> None:
    """The reason is one line and never None."""
    assert [reason_of(error) for error in (OSError(), OSError("a\nb"), OSError(2, "gone"))] == [
        "OSError",
        "a b",
        "gone",
    ]
