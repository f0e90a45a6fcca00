"""Small records of runs that exist in a test alone."""

from typing import Any

from smoothcert.workers.runs.records import CheckpointRecord, RunRecord


def run_record(**changes: Any) -> RunRecord:
    """run.json of a run without shards."""
    smallest: dict[str, Any] = {
        "run_id": "0123456789abcdef",
        "name": "small",
        "partial": False,
        "identity": {},
        "job": {},
        "checkpoint": CheckpointRecord(sha256="0", key=None),
        "shards": (),
    }
    return RunRecord(**smallest | changes)
