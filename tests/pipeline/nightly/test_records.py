"""What a night writes is read as it was, and a record that is not whole is damaged."""

import json

import pytest

from smoothcert.manifests.errors import RunError
from smoothcert.pipeline.nightly.records import CostRecord, EntryRecord, NightRecord
from smoothcert.workers.runs.json_file import parse
from tests.helpers.nights import recorded

ENTRY = EntryRecord(entry="a", job="j", state="unfinished", verdict="unfinished", sentence="s", cost=CostRecord())


def test_a_record_gives_the_same_bytes_again() -> None:
    """Keys of a newer version stay."""
    data = recorded(3, ENTRY).encode()
    newer = json.dumps(json.loads(data) | {"new_key": [1]}, indent=1).encode()
    assert parse(NightRecord, data, "n").encode() == data
    assert parse(NightRecord, newer, "n").encode() == newer


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("began", "yesterday", "began"),
        ("seconds", float("nan"), "seconds"),
        ("entries", [{"entry": "a"}], "entries.0.job is missing"),
        ("exit_code", "0", "exit_code"),
    ],
)
def test_a_wrong_value_is_damage(field: str, value: object, says: str) -> None:
    """The page can rely on times and numbers."""
    content = json.loads(recorded(3, ENTRY).encode()) | {field: value}
    with pytest.raises(RunError, match=rf"nights/x.json is damaged \({says}.*; restore it, or move it away"):
        parse(NightRecord, json.dumps(content), "nights/x.json")
