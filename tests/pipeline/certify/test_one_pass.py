"""A run that fails in the middle of a pass leaves it, and the others go on. In this process, without Ray."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.suite import Suite
from smoothcert.pipeline.certify.alike import Alike
from smoothcert.pipeline.certify.driver import certify
from smoothcert.pipeline.certify.outcome import Outcome
from smoothcert.pipeline.certify.suite_driver import certify_suite
from smoothcert.pipeline.fleet.fleet import Fleet
from smoothcert.workers.networks.described_jobs import load_suite
from smoothcert.workers.runs.publication import Publication
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.votes.job_voter import JobVoter
from tests.helpers import jobs
from tests.helpers.actors_here import actors_here
from tests.helpers.faults import rows_of_files
from tests.helpers.suites import write_suite

pytestmark = pytest.mark.usefixtures("ray_here")


@pytest.fixture(autouse=True)
def in_process() -> Iterator[None]:
    with actors_here():
        yield


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    jobs.write_shards(tmp_path, 4)
    return load_suite(write_suite(tmp_path))


def of_second(function: Callable[..., Any], fault: Exception, job_of: Callable[[Any], Any]) -> Callable[..., Any]:
    """The function; for the second entry it raises the fault."""

    def with_fault(self: Any, *arguments: Any, **options: Any) -> Any:
        if job_of(self).name == "suite: second":
            raise fault
        return function(self, *arguments, **options)

    return with_fault


def states(outcomes: dict[str, Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes.values()]


def rows_are_those_of_the_jobs_alone(suite: Suite, outcomes: dict[str, Outcome], folder: Path) -> bool:
    for name in ("first", "third"):
        alone = certify(suite.jobs[name].model_copy(update={"output": str(folder / "alone")}))
        assert alone.run is not None
        assert outcomes[name].run is not None
        if rows_of_files(Path(alone.run.url)) != rows_of_files(Path(outcomes[name].run.url)):
            return False
    return True


def test_an_actor_that_votes_otherwise_for_one_run_ends_that_run(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of it is published; the lines count only what is still to come."""
    fault = RunError("two actors do not vote alike")
    monkeypatch.setattr(Alike, "check", of_second(Alike.check, fault, lambda alike: alike._run.job))
    outcomes = certify_suite(suite)
    assert states(outcomes) == ["complete", "unfinished", "complete"]
    assert str(fault) in outcomes["second"].problems
    assert outcomes["second"].run is not None
    assert outcomes["second"].run.published() == set()
    printed = capsys.readouterr().out
    assert "failed: second: two actors do not vote alike" in printed
    assert "[8/8]" in printed
    assert "/12]" not in printed
    assert rows_are_those_of_the_jobs_alone(suite, outcomes, tmp_path)


@pytest.mark.parametrize(
    ("owner", "name", "job_of"),
    [
        (JobVoter, "vote", lambda voter: voter.job),
        (Publication, "publish", lambda publication: publication.job),
    ],
    ids=["votes", "publication"],
)
def test_an_error_of_one_run_costs_its_shards_alone(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, owner: type, name: str, job_of: Callable[[Any], Any]
) -> None:
    """It is tried again and given up; the others are done at the first attempt."""
    monkeypatch.setattr("smoothcert.pipeline.certify.one_pass._try_out", lambda scout, entry: ())
    monkeypatch.setattr(owner, name, of_second(getattr(owner, name), RunError("it breaks"), job_of))
    outcomes = certify_suite(suite)
    assert states(outcomes) == ["complete", "unfinished", "complete"]
    assert outcomes["second"].problems[0] == "4 of 4 shards are missing"
    assert sum("given up after 4 attempts, the last: it breaks" in line for line in outcomes["second"].problems) == 4
    assert [outcomes[name].work.computed for name in ("first", "third")] == [4, 4]
    assert rows_are_those_of_the_jobs_alone(suite, outcomes, tmp_path)


def test_the_fleet_ends_with_the_pass(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its actors hold memory, and a night goes on with its reports."""
    closed = list[Fleet]()
    close = Fleet.close
    monkeypatch.setattr(Fleet, "close", lambda fleet: closed.append(fleet) or close(fleet))
    certify_suite(suite)
    assert len(closed) == 1
    assert closed[0]._members == []


def test_an_interrupt_is_raised_and_the_diaries_are_written(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One for each run."""

    def interrupt(self: Publication, task: ShardTask, *arguments: Any, **options: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Publication, "publish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        certify_suite(suite)
    assert len(list(tmp_path.glob("runs/*/drivers/*.jsonl"))) == 3
