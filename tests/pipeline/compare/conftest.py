"""A pair of runs whose every difference is known."""

from pathlib import Path
from typing import NamedTuple

import pytest

from smoothcert.workers.runs.run import Run
from tests.helpers.judged_runs import image, judged_run

SURE = [0] * 12
"""Every vote for class 0: certified against 1 x 1 and 2 x 2, whatever is touched."""
CLOSE = [0] * 7 + [1] * 5
"""Class 0 leads by two votes: no certificate."""


class TwoRuns(NamedTuple):
    base: Run
    new: Run


@pytest.fixture
def two_runs(tmp_path: Path) -> TwoRuns:
    """Two shards; b.tar of the base holds an image of another hash, and each run has a shard of its own."""
    base = {
        "a.tar": [
            image("kept", SURE),
            image("lost", SURE),
            image("gained", CLOSE),
            image("rounded", SURE),
            image("other", SURE, label=2),
            image("broken", SURE),
        ],
        "b.tar": [image("same", SURE), image("edited", SURE, sha256=b"1" * 32), image("gone", SURE)],
        "old.tar": [image("old", SURE)],
    }
    new = {
        "new.tar": [image("new", CLOSE)],
        "b.tar": [image("edited", SURE, sha256=b"2" * 32), image("same", SURE), image("come", CLOSE)],
        "a.tar": [
            image("broken", None),
            image("other", [1] * 12, label=2),
            image("rounded", CLOSE, margins=[1.0] * 7 + [0.5] * 5),
            image("gained", SURE),
            image("lost", CLOSE, clean_prediction=3),
            image("kept", SURE),
        ],
    }
    rounded = base["a.tar"][3]
    rounded["margins"] = [1.0] * 7 + [0.25] * 5
    return TwoRuns(judged_run(tmp_path / "base", base), judged_run(tmp_path / "new", new, weights="1"))
