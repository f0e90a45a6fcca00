"""run.json is written once, and only where the storage refuses to overwrite."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage, load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import Plan, make_plan
from smoothcert.workers.storage.store import AnyStore
from tests.helpers import jobs
from tests.helpers.finished_runs import edit_json


class OverwritingStore(AnyStore):
    """A store that ignores the condition, as some S3 servers do."""

    def publish(self, run_url: str, name: str, data: bytes) -> bool:
        Path(run_url, name).parent.mkdir(parents=True, exist_ok=True)
        Path(run_url, name).write_bytes(data)
        return True


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    jobs.write_shards(tmp_path, 1)
    return make_plan(load_job(jobs.write_job(tmp_path)))


def on_overwriting_store(plan: Plan) -> Plan:
    return replace(plan, run=replace(plan.run, store=OverwritingStore(Storage())))


def test_a_run_begins_once(plan: Plan) -> None:
    """The second driver learns that another one may be at work; run.json stays that of the first."""
    assert begin(plan)
    written = Path(plan.run.url, "run.json").read_bytes()
    assert written == plan.run.record.encode()
    later = replace(plan.run, record=plan.run.record.model_copy(update={"created": "later"}))
    assert not begin(replace(plan, run=later))
    assert Path(plan.run.url, "run.json").read_bytes() == written


def test_what_dead_writers_left_is_removed(plan: Plan) -> None:
    """Nothing half written stays in the folder for such files."""
    left = Path(plan.run.url, ".incoming", "left")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    begin(plan)
    assert not left.exists()


def test_a_store_that_overwrites_is_refused(plan: Plan) -> None:
    """The error names the option that accepts it."""
    with pytest.raises(RequestError, match=r"run\.json could be written twice.*--unsafe-overwrite"):
        begin(on_overwriting_store(plan))


def test_a_store_that_overwrites_is_recorded_where_it_is_accepted(plan: Plan) -> None:
    """run.json says so; all else in it stays, also keys of another version."""
    unsafe = on_overwriting_store(plan)
    assert begin(unsafe, unsafe_overwrite=True)
    path = Path(plan.run.url, "run.json")
    edit_json(path, lambda record: record.pop("unsafe_overwrite") and record.update(more=[1]))
    before = json.loads(path.read_text())
    assert not begin(unsafe, unsafe_overwrite=True)
    expected = json.dumps(before | {"unsafe_overwrite": True}, indent=1, sort_keys=True)
    assert path.read_text() == expected
