"""Several jobs in one pass: each gets the run that it would have had alone, whatever happens to the others."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.certify import one_pass, turns
from smoothcert.pipeline.certify.driver import certify
from smoothcert.pipeline.certify.suite_driver import certify_all_of, certify_suite
from smoothcert.workers.networks.described_jobs import load_suite
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.tars import pixels
from tests.helpers import jobs
from tests.helpers.actors_here import actors_here
from tests.helpers.suites import SAME, entries_of, write_suite
from tests.pipeline.certify.test_driver import rows_of

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture(autouse=True)
def in_process() -> Any:
    with actors_here():
        yield


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    jobs.write_shards(tmp_path, 3)
    return write_suite(tmp_path)


def alone(suite: Path, entry: str) -> str:
    """The folder of the run that the job of an entry gets alone, in another output."""
    job = entries_of(suite)[entry]
    outcome = certify(job.model_copy(update={"output": str(suite.parent / "alone")}))
    assert outcome.run is not None
    return outcome.run.url


def test_each_run_equals_that_of_its_job_alone(suite: Path) -> None:
    """Its id, and every value of every row."""
    outcomes = certify_suite(load_suite(suite))
    assert list(outcomes) == list(entries_of(suite))
    for name, outcome in outcomes.items():
        assert (outcome.state, outcome.problems, outcome.work.computed, outcome.work.images) == ("complete", (), 3, 15)
        assert outcome.run is not None
        assert rows_of(outcome.run.url) == rows_of(alone(suite, name))
        assert outcome.run.url.rpartition("/")[2] == alone(suite, name).rpartition("/")[2]


def test_a_shard_is_fetched_once_and_decoded_once_for_equal_pixels(suite: Path, monkeypatch: Any) -> None:
    """Counted: of two jobs with the same pixels and one with others, 3 fetches instead of 9, 30 images, not 45."""
    fetched, decoded = list[str](), list[bytes]()
    local, decode = AnyStore.local, pixels.decode
    monkeypatch.setattr(one_pass, "_try_out", lambda scout, entry: ())  # it fetches, too
    monkeypatch.setattr(AnyStore, "local", lambda store, url: fetched.append(url) or local(store, url))
    monkeypatch.setattr(pixels, "decode", lambda data, preprocess: decoded.append(data) or decode(data, preprocess))
    assert certify_all_of(load_suite(suite)) == 0
    assert len([url for url in fetched if url.endswith(".tar")]) == 3
    assert len(decoded) == 30
    for name in SAME:
        alone(suite, name)
    assert len([url for url in fetched if url.endswith(".tar")]) == 9
    assert len(decoded) == 60


def broken(suite: Path, entry: dict[str, Any]) -> Path:
    """The suite with one more entry in front."""
    content = yaml.safe_load(suite.read_text())
    content["entries"] = {"bad": entry} | content["entries"]
    suite.write_text(yaml.safe_dump(content))
    return suite


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"model": {"classes": 5}}, "does not fit"),
        ({"model": {"checkpoint": "missing.pt"}}, "missing.pt"),
        ({"model": {"checkpoint": "nan.pt"}}, "a logit is not finite"),
    ],
)
def test_an_entry_that_fails_does_not_stop_the_others(
    suite: Path, entry: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint that does not fit, one that is not there, NaN: exit code 2, and the others complete."""
    torch.save(
        {name: value * float("nan") for name, value in torch.load(suite.parent / "weights.pt").items()},
        suite.parent / "nan.pt",
    )
    assert certify_all_of(load_suite(broken(suite, entry)), json_to=sys.stdout) == 2
    printed = capsys.readouterr()
    entries = json.loads(printed.out)["entries"]
    assert entries["bad"]["state"] == "refused"
    assert says in entries["bad"]["problems"][0]
    assert any(
        line.startswith("failed: bad: ") and says in line for line in printed.err.replace("\n ", " ").splitlines()
    )
    assert [entries[name]["complete"] for name in ("first", "second", "third")] == [True] * 3
    for name in SAME:
        assert rows_of(entries[name]["path"]) == rows_of(alone(suite, name))


def test_a_tar_that_is_damaged_fails_for_all_and_is_named_once(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other shards are published; the same command after the repair computes the missing one alone."""
    tar = suite.parent / "tars" / "01.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-2000] + b"\1" * 2000)
    outcomes = certify_suite(load_suite(suite), json_to=sys.stdout)
    assert {outcome.state for outcome in outcomes.values()} == {"unfinished"}
    assert capsys.readouterr().err.count("[7/9] first, second, third: failed: shard 01.tar: ") <= 1
    assert all("1 of 3 shards are missing" in outcome.problems[0] for outcome in outcomes.values())
    tar.write_bytes(whole)
    again = certify_suite(load_suite(suite))
    assert [(outcome.state, outcome.work.computed) for outcome in again.values()] == [("complete", 1)] * 3


def test_an_entry_that_is_finished_is_left_alone(suite: Path) -> None:
    """Only what each run lacks is computed: here one run has everything, another one shard."""
    certify(entries_of(suite)["first"])
    second = certify(entries_of(suite)["second"])
    assert second.run is not None
    for file in sorted(Path(second.run.url, "votes").iterdir())[:2]:
        file.unlink()
    Path(second.run.url, "_SUCCESS").unlink()
    outcomes = certify_suite(load_suite(suite))
    assert [outcome.work.computed for outcome in outcomes.values()] == [0, 2, 3]
    assert rows_of(second.run.url) == rows_of(alone(suite, "second"))
    assert {outcome.state for outcome in certify_suite(load_suite(suite)).values()} == {"complete"}


def test_two_entries_that_are_one_run_are_refused(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line names both."""
    outcomes = certify_suite(load_suite(broken(suite, {"name": "again", "patches": [3]})))
    assert outcomes["first"].state == "refused"
    assert "this entry is the same run as bad" in outcomes["first"].problems[0]
    assert outcomes["bad"].state == outcomes["second"].state == "complete"


def test_what_is_wrong_for_all_is_one_error(suite: Path) -> None:
    """Tars that are missing."""
    content = yaml.safe_load(suite.read_text()) | {"images": {"shards": "nowhere/*.tar"}}
    suite.write_text(yaml.safe_dump(content))
    with pytest.raises(RequestError, match="nowhere"):
        certify_suite(load_suite(suite))


def test_models_that_do_not_fit_together_take_turns(
    suite: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are said beforehand, and the runs are the same."""
    weights = (suite.parent / "weights.pt").stat().st_size
    gib = 5 * weights / 2**30  # two and a half files fit half of it
    outcomes = certify_suite(load_suite(suite, [f"execution.memory_gib={gib}"]), json_to=sys.stdout)
    said = capsys.readouterr().err
    assert said.index("so the models take turns") < said.index("turn 1 of 2: first, second") < said.index("[1/")
    for name, outcome in outcomes.items():
        assert outcome.run is not None
        assert rows_of(outcome.run.url) == rows_of(alone(suite, name))
    assert turns.turns_of({"a": weights, "b": weights, "c": weights}, 5 * weights) == [["a", "b"], ["c"]]
