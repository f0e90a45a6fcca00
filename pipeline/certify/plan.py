"""From a job to a run: its identity, its shards, and which of them are still to do.

Loads no torch: planning a finished run takes a moment.

Not covered: what a run is on disk (workers/runs/run.py); writing run.json (begin.py); doing the work (driver.py,
fleet.py).
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.identity import VOTES_VERSION, identity_of, run_id_of
from smoothcert.manifests.job import Execution, Images, Job, refuse_code
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import Shard, find_shards_and_classes
from smoothcert.manifests.version import __version__
from smoothcert.pipeline.certify.changed_data import refuse_changed_data
from smoothcert.pipeline.certify.limits import limits_of
from smoothcert.pipeline.certify.sources import sources_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.checkpoint_files import require_checkpoint
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.runs.adoption import Source
from smoothcert.workers.runs.records import CheckpointRecord, RunRecord, ShardRecord
from smoothcert.workers.runs.run import Run, find_run
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.tars.class_names import in_words, with_label_names

if TYPE_CHECKING:
    from smoothcert.workers.certifier import Certifier

LIBRARIES = ("ray", "torch", "torchvision", "timm", "pyarrow", "webdataset", "pillow", "numpy")


@dataclass(frozen=True)
class Plan:
    """A job with all that it names found and identified.

    Attributes:
        job: the job.
        run: where its results go; run.json may not be written yet.
        checkpoint_sha256, checkpoint_key: the weights that vote.
        checkpoint_layout: a phrase that describes the layout of their file.
        tasks: the shards of the run at their present URLs and fingerprints.
        todo: the shards without a published file, the largest first.
        checkpoint_bytes: size of the file of weights.
        sources: files of other runs whose rows may be taken over, by the index of the shard.
        adopt_across: whether these may come from other versions or devices.
        packed_classes: how many classes the index of `smoothcert pack` has; 0 without one.
        notices: what the user must know before the run begins, a line each.
        allow_code: whether code that the job names may run.
    """

    job: Job
    run: Run
    checkpoint_sha256: str
    checkpoint_key: str | None
    checkpoint_layout: str
    tasks: tuple[ShardTask, ...]
    todo: tuple[ShardTask, ...]
    checkpoint_bytes: int = 0
    sources: Mapping[int, Sequence[Source]] = field(default_factory=dict)
    adopt_across: bool = False
    packed_classes: int = 0
    notices: tuple[str, ...] = ()
    allow_code: bool = False

    @property
    def work_id(self) -> str:
        """The id of the run."""
        return self.run.run_id

    @property
    def execution(self) -> Execution:
        """Who computes."""
        return self.job.execution

    def published(self) -> set[str]:
        """Names of the files that the run has by now."""
        return self.run.published()

    def certifier(self, threads: int) -> "Certifier":
        """The Certifier of this plan alone; see `certifier_of`."""
        return certifier_of([self], threads)


def certifier_of(plans: Sequence[Plan], threads: int) -> "Certifier":
    """A Certifier that makes the runs of all plans in one pass over their shards. Raises what it raises; loads torch.

    Args:
        plans: with the same tars.
        threads: CPU threads to use.
    """
    from smoothcert.workers.certifier import Assignment, Certifier

    assignments = [
        Assignment(
            plan.job,
            plan.run.run_id,
            plan.run.url,
            plan.checkpoint_sha256,
            plan.checkpoint_key,
            plan.allow_code,
            plan.sources,
            plan.adopt_across,
        )
        for plan in plans
    ]
    return Certifier(assignments, threads=threads)


class Tars(NamedTuple):
    """The tars of a job; jobs with the same images share them.

    Attributes:
        shards: in order.
        limits: the number of images of each shard that count; None if all do.
        classes: names of the classes by the index of `smoothcert pack`, empty names where it has none.
        notices: what the user must know, a line each.
    """

    shards: Sequence[Shard]
    limits: Sequence[int] | None
    classes: Sequence[str]
    notices: tuple[str, ...]


def find_tars(images: Images, store: Store) -> Tars:
    """Find the tars that a job names; errors as for `make_plan`."""
    notices: list[str] = []
    shards, classes = find_shards_and_classes(images, store, notices.append)
    return Tars(shards, limits_of(shards, images, store), classes, tuple(notices))


def make_plan(job: Job, tars: Tars | None = None, *, allow_code: bool = False, adopt_across: bool = False) -> Plan:
    """Find the shards, hash the checkpoint, and see what is published.

    Args:
        job: the job.
        tars: its tars, if they are known already.
        allow_code: whether code that it names may run later.
        adopt_across: whether shards may be taken over from runs of other versions or devices.
    Raises:
        RequestError: something that the job names is missing or cannot be used, or the data of an existing run
            changed.
        ShardError: with a limit, a tar whose images cannot be counted.
    """
    refuse_code(job.model, allow_code=allow_code)
    ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
    store = AnyStore(job.storage)
    job = job.model_copy(update={"images": with_label_names(job.images, job.model.classes, store)})
    shards, limits, packed, notices = tars or find_tars(job.images, store)
    checkpoint = _find_checkpoint(job, store)
    planned = _plan_run(job, store, shards, limits, checkpoint.record, _class_names(packed, job))
    run = _existing_run(planned) or planned
    published = run.published()
    refuse_changed_data(run, planned.tasks, published)
    todo = [task for task in planned.tasks if task.file_name not in published]
    todo.sort(key=lambda task: -task.shard.size)
    return Plan(
        job=job,
        run=run,
        checkpoint_sha256=checkpoint.record.sha256,
        checkpoint_key=checkpoint.record.key,
        checkpoint_layout=checkpoint.layout,
        tasks=planned.tasks,
        todo=tuple(todo),
        checkpoint_bytes=checkpoint.size,
        sources=sources_of(run, todo, across=adopt_across),
        adopt_across=adopt_across,
        packed_classes=len(packed),
        notices=(*notices, *_about_classes(packed, job)),
        allow_code=allow_code,
    )


class _Checkpoint(NamedTuple):
    """A job's checkpoint; a phrase that describes the layout of its file; the size of the file in bytes."""

    record: CheckpointRecord
    layout: str
    size: int


def _find_checkpoint(job: Job, store: Store) -> _Checkpoint:
    url = job.model.checkpoint
    require_checkpoint(url, store)
    with store.local(url) as file:
        key, layout = recognise(file, job.model.checkpoint_key, url=url)
        record = CheckpointRecord(url=url, sha256=sha256_of(file), key=key)
        return _Checkpoint(record, layout, file.stat().st_size)


def _plan_run(
    job: Job,
    store: Store,
    shards: Sequence[Shard],
    limits: Sequence[int] | None,
    checkpoint: CheckpointRecord,
    class_names: Sequence[str],
) -> Run:
    """The run as it would begin now."""
    limit = None if limits is None else job.images.limit
    identity = identity_of(job, shards, checkpoint_sha256=checkpoint.sha256, checkpoint_key=checkpoint.key, limit=limit)
    run_id = run_id_of(identity)
    counts: Iterable[int | None] = repeat(None) if limits is None else limits
    record = RunRecord(
        run_id=run_id,
        name=job.name,
        partial=limit is not None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        identity=identity,
        votes_version=VOTES_VERSION,
        job=job.model_dump(mode="json"),
        checkpoint=checkpoint,
        shards=tuple(map(ShardRecord.of, shards, counts)),
        versions={"smoothcert": __version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        class_names=tuple(class_names),
    )
    return Run(f"{job.output.rstrip('/')}/{run_id}", record, store)


def _class_names(packed: Sequence[str], job: Job) -> Sequence[str]:
    """The names of the network's classes, if the job, the checkpoint or the index of the tars says them."""
    if job.model.class_names:
        return job.model.class_names
    if isinstance(job.images.label_names, tuple):
        return in_words(job.images.label_names)
    is_named = job.images.label is not None and any(packed)
    return in_words(tuple(packed)) if is_named and len(packed) == job.model.classes else ()


def _about_classes(packed: Sequence[str], job: Job) -> list[str]:
    """A notice if the packed images and the network have other classes: numbers of one are no numbers of the other."""
    few = len(packed) < job.model.classes and not any(packed)  # the last classes may have no images
    if (
        job.images.label is None
        or not packed
        or few
        or len(packed) == job.model.classes
        or job.images.label_names is not None
    ):
        return []
    return [
        f"the index of images.shards has {len(packed):,} classes ({listed(packed, 3)}), the network "
        f"{job.model.classes:,}: labels are numbers of the index; pack again with --classes FILE, the names of the "
        "network's classes in order"
    ]


def _existing_run(planned: Run) -> Run | None:
    """The run that already exists at the URL of the planned one."""
    run = find_run(planned.url, planned.store)
    if run is not None and run.run_id != planned.run_id:
        raise RequestError(
            f"{planned.url}: its run.json is that of run {run.run_id}, so the folder was renamed or copied; rename it "
            f"to {run.run_id}, or move it out of {planned.url.rpartition('/')[0]}"
        )
    return run
