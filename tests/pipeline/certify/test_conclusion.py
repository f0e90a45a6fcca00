"""A run ends with what is published: _SUCCESS if nothing is missing, or a line that says what is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.pipeline.certify.conclusion import conclude
from smoothcert.pipeline.certify.one_pass import Entry, enter
from smoothcert.pipeline.certify.options import Options
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs import column_ranges, published
from tests.helpers.diaries import write_diary_of
from tests.helpers.finished_runs import file_of, finish, rows_of, write


@pytest.fixture
def enter_run(tmp_path: Path) -> Callable[..., Entry]:
    """A small run without _SUCCESS."""
    (finish(tmp_path) / "_SUCCESS").unlink()

    def enter_it(*, strict: bool = False) -> Entry:
        plan = make_plan(load_job(tmp_path / "job.yaml"))
        return enter(plan, Options(strict_versions=strict))

    return enter_it


def test_a_complete_run_gets_its_success(enter_run: Callable[..., Entry], tmp_path: Path) -> None:
    """Once; a second end of the same run changes nothing."""
    entry = enter_run()
    outcome, described = conclude(entry, Console())
    success = Path(entry.plan.run.url) / "_SUCCESS"
    written = success.read_bytes()
    assert (outcome.state, described["complete"], described["computed"]) == ("complete", True, 0)
    assert json.loads(written)["images"] == described["images"] == 13
    assert conclude(enter_run(), Console())[0].state == "complete"
    assert success.read_bytes() == written


@pytest.mark.parametrize("known", [(0,), (0, 1)])
def test_success_is_the_same_if_diaries_know_the_hashes(
    enter_run: Callable[..., Entry], known: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files, or those of a driver that ended while another was killed; to the byte."""
    entry = enter_run()
    run = Path(entry.plan.run.url)
    conclude(entry, Console())
    written = (run / "_SUCCESS").read_bytes()
    (run / "_SUCCESS").unlink()
    write_diary_of(run, known)
    for module in (column_ranges, published):
        monkeypatch.setattr(module, "WHOLE_BYTES", 0)
    conclude(enter_run(), Console())
    assert (run / "_SUCCESS").read_bytes() == written


def test_an_unfinished_run_gets_none(enter_run: Callable[..., Entry]) -> None:
    """It says how many shards are missing."""
    entry = enter_run()
    file_of(Path(entry.plan.run.url)).unlink()
    outcome, described = conclude(entry, Console())
    assert outcome.state == "unfinished"
    assert outcome.problems[0] == "1 of 2 shards are missing"
    assert (described["complete"], described["published"]) == (False, 1)
    assert not (Path(entry.plan.run.url) / "_SUCCESS").exists()


def test_a_file_that_changed_after_the_end_is_an_error(enter_run: Callable[..., Entry]) -> None:
    """Its rows are damaged, or they are not those of _SUCCESS."""
    entry = enter_run()
    conclude(entry, Console())
    file = file_of(Path(entry.plan.run.url))
    write(file, rows_of(file), renew=False, seconds=1.5)
    with pytest.raises(RunError, match="its SHA-256 is not the one in _SUCCESS"):
        conclude(enter_run(), Console())


def test_strict_versions_hold_for_every_file(enter_run: Callable[..., Entry]) -> None:
    """Also for files that no actor introduced, such as those of another driver, or those that were taken over."""
    entry = enter_run(strict=True)
    file = file_of(Path(entry.plan.run.url))
    write(file, rows_of(file), renew=False, device="another")
    with pytest.raises(RequestError, match=r"^--strict-versions: .*another.* against "):
        conclude(entry, Console())
    assert not (Path(entry.plan.run.url) / "_SUCCESS").exists()
