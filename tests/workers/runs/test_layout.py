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
    files = [path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()]
    assert all(map(layout.is_of_a_run, files))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("run.json", True),
        ("pruned.json", True),
        ("introduction.json", True),
        ("votes/123456-my.tar.parquet", True),
        ("drivers/20260102T030405Z-node-1.jsonl", True),
        ("quarantine/20260102T030405Z/votes/00000-a.parquet", True),
        ("quarantine/20260102T030405Z/_SUCCESS", True),
        (".incoming/0123456789abcdef0123456789abcdef", True),
        ("notes.txt", False),
        ("votes/notes.txt", False),
        ("votes/mine.parquet", False),
        ("votes/sub/00000-a.parquet", False),
        ("my/run.json", False),
        ("run.json.bak", False),
        ("runxjson", False),
        ("quarantine/notes.txt", False),
        (".incoming/mine", False),
        ("", False),
    ],
)
def test_files_of_users_are_not_those_of_a_run(name: str, *, ours: bool) -> None:
    """`prune` removes only what smoothcert wrote."""
    assert layout.is_of_a_run(name) is ours
