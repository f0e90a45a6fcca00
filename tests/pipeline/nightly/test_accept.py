"""`smoothcert accept`: which entries a run becomes the baseline of, and which runs are refused."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.nightly.accept import Accepted, accept
from tests.helpers.finished_runs import upload
from tests.helpers.nights import baseline_of, complete, made, one_shard, recorded, suite_of, unfinished
from tests.pipeline.nightly.conftest import Night


def test_a_run_becomes_the_baseline_of_its_entries_and_back(tmp_path: Path, run_night: Night) -> None:
    """An older one, too. Entries of other runs stay as they are; the page marks the baseline."""
    old, new = made(tmp_path, one_shard(3)), made(tmp_path, one_shard(2, 1), weights="1")
    suite = suite_of(tmp_path, ("small", "twin", "other"))
    run_night(suite, {"small": complete(old), "twin": complete(old), "other": complete(new)})
    run_night(suite, {"small": complete(new), "twin": complete(old), "other": complete(new)})
    assert accept(new.url, Storage()) == (
        [
            Accepted("night", "other", new.run_id, new.run_id),
            Accepted("night", "small", new.run_id, old.run_id),
        ],
        [],
    )
    assert [baseline_of(suite, entry) for entry in suite.jobs] == [new.run_id, old.run_id, new.run_id]
    page = (tmp_path / "history" / "index.html").read_text()
    assert f"run {new.run_id}, accepted, 20" in page
    accepted, _ = accept(old.url, Storage())
    assert [one.line for one in accepted] == [
        f"small of night: the baseline is now run {old.run_id}, in place of {new.run_id}",
        f"twin of night: run {old.run_id} is the baseline already",
    ]
    assert baseline_of(suite) == old.run_id


def test_an_unfinished_run_is_refused(tmp_path: Path, run_night: Night) -> None:
    run = made(tmp_path, one_shard(3), finished=False)
    run_night(suite_of(tmp_path), {"small": unfinished(run)})
    with pytest.raises(RequestError, match=r"is unfinished; run the suite's command again"):
        accept(run.url, Storage())


def test_a_run_of_no_night_is_refused_with_the_entries_that_there_are(tmp_path: Path, run_night: Night) -> None:
    lone = made(tmp_path, one_shard(3))
    with pytest.raises(RequestError, match=r"no night made this run; .*/history has no nights with runs; `smoothcert"):
        accept(lone.url, Storage())
    other = made(tmp_path, one_shard(2), weights="1")
    run_night(suite_of(tmp_path), {"small": complete(other)})
    with pytest.raises(RequestError, match=rf"no night made this run; name one of a night, .*: {other.run_id}$"):
        accept(lone.url, Storage())


def test_accepting_again_is_the_remedy_for_a_damaged_baseline(tmp_path: Path, run_night: Night) -> None:
    run, suite = made(tmp_path, one_shard(3)), suite_of(tmp_path)
    run_night(suite, {"small": complete(run)})
    next((tmp_path / "history" / "accepted").iterdir()).write_text("{")
    (tmp_path / "history" / "nights" / "0.json").write_text("{")
    accepted, damaged = accept(run.url, Storage())
    assert accepted == [Accepted("night", "small", run.run_id, None)]
    assert "0.json is damaged" in damaged[0]
    assert baseline_of(suite) == run.run_id


def test_the_command_prints_sentences_or_json(tmp_path: Path, run_night: Night) -> None:
    old, new = made(tmp_path, one_shard(3)), made(tmp_path, one_shard(2, 1), weights="1")
    suite = suite_of(tmp_path)
    for run in (old, new):
        run_night(suite, {"small": complete(run)})
    said = CliRunner().invoke(app, ["accept", new.url, "--json"])
    expected = [{"suite": "night", "entry": "small", "run_id": new.run_id, "replaces": old.run_id}]
    assert (said.exit_code, json.loads(said.stdout)) == (0, expected)
    said = CliRunner().invoke(app, ["accept", old.url])
    assert said.stdout == f"small of night: the baseline is now run {old.run_id}, in place of {new.run_id}\n"
    assert CliRunner().invoke(app, ["accept", str(tmp_path / "none")]).exit_code == 2


def test_a_run_in_s3_is_accepted_there(tmp_path: Path, bucket: str, no_curves: None) -> None:
    """The history lies beside it."""
    from smoothcert.pipeline.nightly.history import History
    from smoothcert.pipeline.nightly.records import EntryRecord

    run = made(tmp_path, one_shard(3))
    url = upload(Path(run.url), bucket)
    history = History(f"s3://{bucket}/runs", Storage())
    entry = EntryRecord(entry="small", job="j", run_id=run.run_id, state="complete", verdict="no gates", sentence="s")
    history.publish_night(recorded(1, entry))
    accepted, _ = accept(url, Storage())
    assert accepted == [Accepted("night", "small", run.run_id, None)]
    assert history.baseline("night", "small").run_id == run.run_id  # type: ignore[union-attr]
    assert run.run_id in history.store.read(f"{history.url}/index.html").decode()
