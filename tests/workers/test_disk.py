"""A disk that is full is named, wherever something is written."""

import errno
import os

import pytest

from manifests.errors import RunError
from workers.disk import naming_a_full_disk, reason_of


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line(number: int) -> None:
    """The folder, what the system says, and what else can be done; other errors pass."""
    says = rf"^/a/b is full \({os.strerror(number)}\); make room there, or set C$"
    with pytest.raises(RunError, match=says), naming_a_full_disk("/a/b", "set C"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(PermissionError), naming_a_full_disk("/a/b", "set C"):
        raise PermissionError(errno.EACCES, "no")


def test_an_error_without_words_has_a_reason() -> None:
    """Never None, and one line."""
    assert [reason_of(error) for error in (OSError(), OSError("a\nb"), OSError(2, "gone"))] == [
        "OSError",
        "a b",
        "gone",
    ]
