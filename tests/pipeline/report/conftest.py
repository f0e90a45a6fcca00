"""Runs to report on."""

from pathlib import Path

import pytest

from tests.helpers.finished_runs import RUNS, finish


@pytest.fixture(scope="session")
def finished_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of blocks without labels; not to be changed."""
    return finish(tmp_path_factory.mktemp("blocks"), **RUNS["block"])
