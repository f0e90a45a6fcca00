"""A library that is missing is one line that says what to install."""

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.extras import load


def test_a_library_is_loaded_or_its_extra_is_named() -> None:
    """A module within a package, too."""
    assert load("urllib3.util", "https://h/a", "certify").parse_url("https://h/a").host == "h"
    with pytest.raises(RequestError) as found:
        load("no_such_library", "gs://b/a.tar?", "gcs")
    assert str(found.value) == (
        "gs://b/a.tar?: this needs no_such_library, which is not installed; run: pip install 'smoothcert[gcs]'"
    )
