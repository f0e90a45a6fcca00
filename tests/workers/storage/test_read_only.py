"""Nothing is written where files are only read."""

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.read_only import ReadOnly

URL = "https://example.org/runs"


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("publish", (URL, "a", b"")),
        ("move", (URL, URL)),
        ("remove", (URL,)),
        ("remove_folder", (URL,)),
        ("sweep", (URL,)),
    ],
)
def test_what_would_change_something_is_refused(method: str, arguments: tuple[object, ...]) -> None:
    """One line says what to name instead."""
    with pytest.raises(RequestError, match="runs: files are only read from https://; let the output be a"):
        getattr(ReadOnly(), method)(*arguments)
