"""From a job to a run: its identity, its shards, and what of it is still to do.

State lives in storage alone: run.json is written first and once, each shard's file once, _SUCCESS last.
Loads no torch: planning a finished run takes a moment.

Not covered: what a run is on disk (workers/runs/run.py); doing it (driver.py, fleet.py).
"""

import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from smoothcert.manifests.errors import RequestError, RunError, ShardError
from smoothcert.manifests.identity import VOTES_VERSION, identity_of, run_id_of
from smoothcert.manifests.job import Images, Job
from smoothcert.manifests.shards import Shard, find_shards
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.networks.checkpoint_files import require_checkpoint
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.runs.run import OF_A_SHARD, Run, damaged, find_run
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.runs.votes_table import read_metadata
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.tars.tar_headers import LeftOut, read_tar

if TYPE_CHECKING:
    from smoothcert.workers.certifier import Certifier

LIBRARIES = ("ray", "torch", "torchvision", "timm", "pyarrow", "webdataset", "pillow", "numpy")


@dataclass(frozen=True)
class Plan:
    """A job made definite.

    Attributes:
        job: the job.
        run: where its results go; run.json may not be written yet.
        checkpoint_sha256, checkpoint_key: the weights that vote.
        checkpoint_layout: how their file is laid out, in words.
        tasks: the shards of the run at their present URLs and fingerprints.
        todo: those of them without a published file, the largest first.
        notices: what the user must know before it begins, a line each.
    """

    job: Job
    run: Run
    checkpoint_sha256: str
    checkpoint_key: str | None
    checkpoint_layout: str
    tasks: tuple[ShardTask, ...]
    todo: tuple[ShardTask, ...]
    notices: tuple[str, ...] = ()

    def certifier(self, threads: int) -> "Certifier":
        """What does the shards, with the model loaded; errors as of Certifier. Loads torch."""
        from smoothcert.workers.certifier import Certifier

        return Certifier(
            self.job,
            run_id=self.run.run_id,
            run_url=self.run.url,
            checkpoint_sha256=self.checkpoint_sha256,
            checkpoint_key=self.checkpoint_key,
            threads=threads,
        )


def certifier_of(plans: Sequence[Plan], threads: int) -> "Certifier":
    """What makes the runs of all plans in one pass over their shards; today there is one. Loads torch."""
    [plan] = plans
    return plan.certifier(threads)


def make_plan(job: Job) -> Plan:
    """Find the shards, hash the checkpoint, and see what is there.

    Raises:
        RequestError: something the job names is missing or cannot be used, or the data of an existing run changed.
        ShardError: with a limit, a tar whose images cannot be counted.
    """
    Geometry.of(job.ablation, job.preprocess.crop, job.preprocess.crop)
    store = AnyStore(job.storage)
    notices: list[str] = []
    shards = find_shards(job.images, store, notices.append)
    require_checkpoint(job.model.checkpoint, store)
    with store.local(job.model.checkpoint) as checkpoint:
        checkpoint_sha256 = sha256_of(checkpoint)
        checkpoint_key, layout = recognise(checkpoint, job.model.checkpoint_key, url=job.model.checkpoint)
    limits = _limits(shards, job.images, store)
    limit = None if limits is None else job.images.limit
    identity = identity_of(job, shards, checkpoint_sha256=checkpoint_sha256, checkpoint_key=checkpoint_key, limit=limit)
    run_id = run_id_of(identity)
    record = {
        "run_id": run_id,
        "name": job.name,
        "partial": limit is not None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": identity,
        "votes_version": VOTES_VERSION,
        "job": job.model_dump(mode="json"),
        "checkpoint": {"url": job.model.checkpoint, "sha256": checkpoint_sha256, "key": checkpoint_key},
        "shards": [
            {name: getattr(s, name) for name in OF_A_SHARD} | {"limit": None if limits is None else limits[i]}
            for i, s in enumerate(shards)
        ],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }
    url = f"{job.output.rstrip('/')}/{run_id}"
    tasks = Run(url, record, store).tasks
    run = find_run(url, store) or Run(url, record, store)
    if run.run_id != run_id:
        raise RequestError(f"{url} holds run {run.run_id}, not the one of its name; move it back, or away")
    published = run.published()
    _refuse_changed_data(run, tasks, published)
    todo = sorted((task for task in tasks if task.file_name not in published), key=lambda task: -task.shard.size)
    return Plan(job, run, checkpoint_sha256, checkpoint_key, layout, tasks, tuple(todo), tuple(notices))


def begin(plan: Plan, *, unsafe_overwrite: bool = False) -> bool:
    """Write run.json, unless this run has begun before; sweep up what dead writers left.

    run.json is written twice: the second write must be refused, or nothing here is published once.

    Args:
        plan: the plan.
        unsafe_overwrite: go on where it is not, and say so in run.json.
    Returns:
        Whether the run begins now; if not, another driver may be at work on it.
    Raises:
        RequestError: the storage does not refuse the second write.
    """
    run = plan.run
    url = f"{run.url}/run.json"
    begins = run.store.find(url) is None and run.store.publish(run.url, "run.json", _as_json(run.record))
    there = run.store.read(url)
    if run.store.publish(run.url, "run.json", there):
        if not unsafe_overwrite:
            raise RequestError(
                f"output: {url} could be written twice, so of two machines that publish a shard the later would win "
                "(some servers ignore If-None-Match, in versioned buckets above all); use another bucket, or "
                "--unsafe-overwrite"
            )
        run.store.publish(run.url, "run.json", _as_json(json.loads(there) | {"unsafe_overwrite": True}))
    run.store.sweep(run.url)
    return begins


def _as_json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True).encode()


class Expected(NamedTuple):
    """What a shard will give: its rows, None where only fetching the tar would tell; and what of a tar read for this
    is in no run.
    """

    images: int | None
    left_out: LeftOut = LeftOut()


def expect(task: ShardTask, plan: Plan) -> Expected:
    """Look into a local tar where nothing else tells how many images it holds.

    Raises:
        ShardError: the tar is not whole.
    """
    known = task.shard.images if task.limit is None else task.limit
    if known is not None or "://" in task.shard.url:
        return Expected(known)
    with plan.run.store.local(task.shard.url) as tar:
        contents = read_tar(tar, plan.job.images)
    return Expected(len(contents.images), contents.left_out)


def count_images(task: ShardTask, plan: Plan) -> int | None:
    """The rows that a shard will give; None and errors as of `expect`."""
    return expect(task, plan).images


def _limits(shards: Sequence[Shard], images: Images, files: Store) -> list[int] | None:
    """How many images of each shard count; None where the limit is not reached."""
    if images.limit is None:
        return None
    remaining = images.limit
    limits: list[int] = []
    for shard in shards:
        if remaining == 0:
            return limits + [0] * (len(shards) - len(limits))
        try:
            with files.local(shard.url) as tar:
                count = len(read_tar(tar, images).images)
        except ShardError as error:
            raise ShardError(f"images.limit: cannot count the images of {shard.name}: {error}") from None
        limits.append(min(count, remaining))
        if count > remaining:
            return limits + [0] * (len(shards) - len(limits))
        remaining -= count
    return None


def _refuse_changed_data(run: Run, now: Sequence[ShardTask], published: set[str]) -> None:
    """Equal names and sizes can hide other data: compare what is published with the tars of today."""
    if [task.limit for task in run.tasks] != [task.limit for task in now]:
        raise RequestError(
            f"images.shards: the first {run.job.images.limit} images do not lie in the same tars as when {run.url} was "
            "begun, under the same names and sizes; set images.version to tell the two apart"
        )
    for then, task in zip(run.tasks, now, strict=True):
        if then.shard.fingerprint == task.shard.fingerprint or task.file_name not in published:
            continue
        file = f"{run.url}/{task.file_name}"
        try:
            there = read_metadata(io.BytesIO(run.store.read(file)))["shard_sha256"]
        except (ValueError, KeyError) as error:
            raise RunError(damaged(file, error)) from None
        with run.store.local(task.shard.url) as tar:
            here = sha256_of(tar)
        if here != there:
            raise RequestError(
                f"images.shards: {task.shard.url} has other content than when {run.url} was made, under the same name "
                "and size; set images.version to tell the two apart"
            )
