"""How many images a shard will give, from the cheapest source that knows."""

from dataclasses import replace
from pathlib import Path

import pytest

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.image_counts import Expected, count_images, expect
from smoothcert.pipeline.certify.plan import Plan, make_plan
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.tars.tar_headers import LeftOut
from tests.helpers import jobs
from tests.helpers.tars import tar_of, write_tar


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Of one tar with three images and a file of macOS."""
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars", tar_of([("._a.png", b"x"), *jobs.samples(0, 3)]), "00.tar")
    return make_plan(load_job(jobs.write_job(tmp_path)))


def with_shard(task: ShardTask, **changes: object) -> ShardTask:
    return replace(task, shard=replace(task.shard, **changes))


def test_a_local_tar_is_read(plan: Plan) -> None:
    """Its headers say how many images there are, and what is not in the run."""
    assert expect(plan.tasks[0], plan) == Expected(3, LeftOut(system_members=1))
    assert count_images(plan.tasks[0], plan) == 3


def test_an_index_file_or_a_limit_is_enough(plan: Plan) -> None:
    """The tar is not read, though it is here; the limit counts before the index."""
    (task,) = plan.tasks
    assert expect(with_shard(task, images=7), plan) == Expected(7)
    assert expect(replace(with_shard(task, images=7), limit=2), plan) == Expected(2)


def test_a_tar_elsewhere_is_not_fetched(plan: Plan) -> None:
    """The number is then unknown."""
    assert expect(with_shard(plan.tasks[0], url="s3://bucket/00.tar"), plan) == Expected(None)


def test_a_tar_that_is_not_whole_is_an_error(plan: Plan) -> None:
    """The shard would fail."""
    tar = Path(plan.tasks[0].shard.url)
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(ShardError):
        count_images(plan.tasks[0], plan)
