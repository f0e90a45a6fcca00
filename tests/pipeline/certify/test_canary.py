"""A fault of nearly all first images is a fault of the request; a fault of some is not."""

import re
from collections import Counter

import numpy as np
import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Job, load_job
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.certify.canary import Canary
from smoothcert.workers.runs.shard_task import ShardTask, TriedOut
from smoothcert.workers.tars.label_counts import LabelCounts
from tests.helpers import jobs


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return load_job(jobs.write_job(tmp_path_factory.mktemp("job")))


def _canary(job: Job, *shards: dict[str, int]) -> Canary:
    """After shards of so many images of each status; right labels are 0, 1 and 2 in turn."""
    canary = Canary(job)
    for number, statuses in enumerate(shards):
        names = [status for status, count in statuses.items() for _ in range(count)]
        labels = np.array([place % jobs.CLASSES if name == "ok" else -1 for place, name in enumerate(names)])
        counts = LabelCounts.of(
            [f"{place:04d}" for place in range(len(names))],
            ["no member .cls" if name == "label_error" else None for name in names],
            labels,
            [labels],
            images=job.images,
            classes=jobs.CLASSES,
        )
        task = ShardTask(number, Shard(f"{number:02d}.tar", "", 1, ""), None)
        canary.add(task, TriedOut(Counter(statuses), "0000: why", counts))
    return canary


@pytest.mark.parametrize(
    ("statuses", "says"),
    [
        (
            {"label_error": 32},
            r"32 of the first 32 images of 00\.tar have no usable label, the first is 0000: no member",
        ),
        ({"label_error": 29, "ok": 3}, r"29 of the first 32 images"),
        ({"label_error": 8}, r"8 of the first 8 images"),
    ],
)
def test_if_nearly_all_labels_are_bad_the_request_is_wrong(job: Job, statuses: dict[str, int], says: str) -> None:
    """The request is wrong: one line says how many, which is the first and why, and what to do."""
    fault = _canary(job, statuses).fault()
    assert isinstance(fault, RequestError)
    assert str(fault).startswith("images.label: ")
    assert re.search(says, str(fault))
    assert "images.label: null" in str(fault)
    assert "\n" not in str(fault)


@pytest.mark.parametrize("statuses", [{"model_error": 32}, {"size_error": 29, "ok": 3}, {"decode_error": 16}])
def test_if_nearly_no_image_can_be_voted_on_the_run_ends(job: Job, statuses: dict[str, int]) -> None:
    """The run cannot go on: the line says what most images have."""
    fault = _canary(job, statuses).fault()
    assert type(fault) is (RunError if "decode_error" in statuses else RequestError)
    status, count = Counter(statuses).most_common(1)[0]
    assert f"can be voted on ({count} x {status}, the first is 0000: why); check the " in str(fault)


@pytest.mark.parametrize(
    "statuses",
    [{"ok": 32}, {"ok": 4, "label_error": 28}, {"ok": 10, "decode_error": 22}, {"label_error": 7}, {"model_error": 7}],
)
def test_faults_of_some_images_do_not_stop_the_run(job: Job, statuses: dict[str, int]) -> None:
    """Nor do faults of fewer than eight images."""
    assert _canary(job, statuses).fault() is None


def test_one_odd_shard_proves_nothing(job: Job) -> None:
    """A fault is believed when three shards have it; one shard without it is enough to go on."""
    bad, good = {"label_error": 20}, {"ok": 20}
    assert not _canary(job, bad).is_sure
    assert not _canary(job, bad, bad).is_sure
    assert _canary(job, bad, bad, bad).is_sure
    assert _canary(job, bad, bad, bad).fault() is not None
    assert _canary(job, bad, good).is_sure
    assert _canary(job, bad, good).fault() is None
    assert _canary(job, good).is_sure
    assert not _canary(job, {"ok": 3}).is_sure
    assert not _canary(job, *[{"label_error": 1}] * 7).is_sure  # tiny shards: more of them
    assert _canary(job, *[{"label_error": 1}] * 8).is_sure
