"""An actor of a study makes the worker of its plan."""

from pathlib import Path

import numpy as np
import pytest
import ray

from smoothcert.manifests.studies import Amplification
from smoothcert.pipeline.studies.actor import StudyActor
from smoothcert.pipeline.studies.plan import plan_study
from smoothcert.pipeline.studies.selection import Choice
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.runs.shard_task import ShardReport


def test_a_part_is_measured_and_published(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    opened = open_run(run)
    plan = plan_study(opened, Amplification(iterations=1), Choice(None, 0), lambda: iter([(0, np.arange(2))]))
    *_, report = StudyActor([plan], 1).work(plan.todo[0], [plan.work_id])
    assert isinstance(report, ShardReport)
    assert (report.run_id, report.rows, report.published) == (plan.work_id, 2, True)
    assert plan.published() == {plan.todo[0].file_name}
    assert plan.study.missing() == ()
