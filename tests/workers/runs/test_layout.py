"""The names of a run's files, which never change: runs of older versions have them, too."""

from pathlib import Path

import pytest

from smoothcert.workers.runs import layout


@pytest.mark.parametrize(
    ("index", "shard", "name"),
    [
        (0, "val-00.tar", "votes/00000-val-00.parquet"),
        (12345, "a.tar", "votes/12345-a.parquet"),
        (123456, "a.tar", "votes/123456-a.parquet"),  # over 100,000 shards
        (1, "my.tar.tar", "votes/00001-my.tar.parquet"),  # one suffix is removed
        (1, "no suffix", "votes/00001-no suffix.parquet"),
    ],
)
def test_a_file_of_votes_has_position_and_name_of_its_shard(index: int, shard: str, name: str) -> None:
    """Sorted by name, the files are in the order of the shards."""
    assert layout.votes_file(index, shard) == name


def test_a_finished_run_holds_these_names_alone(finished: Path) -> None:
    """What lies directly in the folder of a run that was certified without Ray."""
    visible = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
    assert visible == {layout.RUN_JSON, layout.SUCCESS, layout.VOTES}
    assert (layout.RUN_JSON, layout.SUCCESS, layout.VOTES) == ("run.json", "_SUCCESS", "votes")
    assert (layout.INTRODUCTION, layout.DRIVERS, layout.QUARANTINE) == ("introduction.json", "drivers", "quarantine")
