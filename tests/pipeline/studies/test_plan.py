"""From what a user names to a study that begins or continues."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.studies import Amplification, Sensitivity
from smoothcert.pipeline.studies import plan as planning
from smoothcert.pipeline.studies.plan import StudyPlan, plan_study, run_to_study
from smoothcert.pipeline.studies.selection import Candidates, Choice
from smoothcert.workers.runs.layout import is_of_a_run
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers import jobs

ALL = Choice(None, 0)


def candidates_of(run: Run) -> Candidates:
    return ((task.index, np.arange(6)) for task in run.tasks)


def plan_of(run: Run, choice: Choice = ALL) -> StudyPlan:
    return plan_study(run, Amplification(), choice, lambda: candidates_of(run))


def test_a_folder_is_its_run(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_to_study(str(finished)).run_id == finished.name
    monkeypatch.chdir(finished.parent)
    assert run_to_study(finished.name).url == str(finished)


def test_a_job_file_begins_its_run(tmp_path: Path) -> None:
    """So the study has a place, and a later certify goes on with the same run."""
    jobs.write_shards(tmp_path)
    job = jobs.write_job(tmp_path)
    run = run_to_study(str(job), ["ablation.size=5"])
    assert run.job.ablation.size == 5
    assert Path(run.url, "run.json").exists()
    assert run_to_study(str(job), ["ablation.size=5"]).record == run.record


def test_who_computes_is_what_the_user_says_now(tmp_path: Path) -> None:
    """It is no part of a run's identity."""
    jobs.write_shards(tmp_path)
    job = jobs.write_job(tmp_path)
    run = run_to_study(str(job))
    assert run.job.execution.images_per_batch is None
    for target in (str(job), run.url):
        now = run_to_study(target, ["execution.images_per_batch=3", "execution.actors=2"])
        assert (now.run_id, now.job.execution.images_per_batch, now.job.execution.actors) == (run.run_id, 3, 2)


def test_an_attack_with_patches_begins_no_run(tmp_path: Path) -> None:
    jobs.write_shards(tmp_path)
    with pytest.raises(RequestError, match=r"its run .* does not exist; run `smoothcert certify"):
        run_to_study(str(jobs.write_job(tmp_path)), begins=False)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("target", "overrides", "line"),
    [
        ("RUN", ["ablation.size=3"], "--set ablation: would be another run; name a job file"),
        ("RUN", ["execution.actors=many"], "--set: actors: 'many'"),
        ("nowhere", [], "nowhere"),
        ("EMPTY", [], "no run here"),
        ("SUITE", [], "is a suite; name a job file, or the folder of one run"),
    ],
)
def test_what_is_neither_is_one_line(
    target: str, overrides: list[str], line: str, tmp_path: Path, finished: Path
) -> None:
    jobs.write_shards(tmp_path)
    jobs.write_job(tmp_path)
    (tmp_path / "suite.yaml").write_text("entries: {one: {}}\n" + (tmp_path / "job.yaml").read_text())
    (tmp_path / "empty").mkdir()
    places = {"RUN": finished, "EMPTY": tmp_path / "empty", "SUITE": tmp_path / "suite.yaml"}
    with pytest.raises(RequestError) as caught:
        run_to_study(str(places.get(target, target)), overrides)
    assert line in str(caught.value)


def test_parts_hold_every_chosen_image_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part spans two shards, and none is larger than it may be."""
    monkeypatch.setattr(planning, "IMAGES_PER_PART", 4)
    plan = plan_of(open_run(run), Choice(10, 0))
    images = [(task.shard.name, image) for task in plan.study.tasks for image in task.images]
    assert len(images) == 10 == len(set(images))
    assert max(len(task.images) for task in plan.study.tasks) <= 4
    assert [task.index for task in plan.todo] == [*range(len(plan.study.tasks))]
    assert all(is_of_a_run(task.file_name) for task in plan.todo)


def test_the_same_request_finds_its_study(run: Path) -> None:
    """Candidates are not looked at again."""
    first = plan_of(open_run(run))

    def nobody() -> Iterator[tuple[int, np.ndarray]]:
        raise AssertionError

    again = plan_study(open_run(run), Amplification(), ALL, nobody)
    assert again.study.record == first.study.record
    others = [plan_of(open_run(run), Choice(3, 0)), plan_of(open_run(run), Choice(3, 1))]
    others.append(plan_study(open_run(run), Sensitivity(), ALL, lambda: candidates_of(open_run(run))))
    assert len({first.work_id, *(other.work_id for other in others)}) == 4


def test_a_damaged_study_is_one_line(run: Path) -> None:
    plan = plan_of(open_run(run))
    Path(plan.study.url, "study.json").write_text("{")
    with pytest.raises(RunError, match=r"study\.json is damaged .*remove the folder of the study"):
        plan_of(open_run(run))
