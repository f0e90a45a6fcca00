"""What several tests of this room use."""

import pytest

from smoothcert.manifests.job import Storage
from smoothcert.workers.storage.store import AnyStore


@pytest.fixture
def store() -> AnyStore:
    """Local folders."""
    return AnyStore(Storage())
