"""One shard in, one published Parquet file out, per run.

    pixels        tars/pixels.py         ahead, while another shard has its turn
    votes         votes/job_voter.py     in its turn: the models serve one shard at a time
    certificates  certificates/          after its turn
    file          runs/publication.py    last

This file ties these together. Several runs can share the pixels: a shard is fetched and decoded once, each model votes
on each batch, and each run gets its own file.

It runs on a machine without ray. Not covered: which shards there are, and which machine certifies them (pipeline/).
"""

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import torch

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.identity import VOTES_VERSION
from smoothcert.manifests.job import Job
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.iteration import ahead
from smoothcert.workers.networks.classifiers import preprocess_notice
from smoothcert.workers.rows import numbers, predictions, row_of, with_certificates, with_votes
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.publication import Publication, TarFacts
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask, TriedOut
from smoothcert.workers.runs.votes_table import Row
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.tars.label_counts import LabelCounts
from smoothcert.workers.tars.pixels import Batch, PixelReader
from smoothcert.workers.tars.shard_reader import naming
from smoothcert.workers.votes.job_voter import JobVoter
from smoothcert.workers.votes.machine import auto_images_per_batch, device_here, environment_here
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.voters import load_voter

_T = TypeVar("_T")
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Assignment:
    """A run that a certifier works for.

    Attributes:
        job: the job.
        run_id, run_url: of the run; its run.json exists.
        checkpoint_sha256, checkpoint_key: as the run's identity has them.
        allow_code: whether code that the job names may run.
    """

    job: Job
    run_id: str
    run_url: str
    checkpoint_sha256: str
    checkpoint_key: str | None
    allow_code: bool = False


class _Prepared(NamedTuple):
    """What votes and what publishes for an assignment."""

    voter: JobVoter
    publication: Publication


class _Voted(NamedTuple):
    """A shard after its turn.

    Attributes:
        rows: of each run, without certificates.
        rotated_images: number of images whose EXIF orientation says that the stored pixels are not upright.
        turn_s: length of the turn in seconds.
        waited_s: seconds of the turn spent waiting for decoded images.
    """

    rows: list[list[Row]]
    rotated_images: int
    turn_s: float
    waited_s: float


class Certifier:
    """Loaded models, ready for shards.

    Args:
        assignments: at least one. All see the same pixels.
        threads: CPU threads to use.
    Raises:
        RequestError: a checkpoint is not its run's or does not fit its model, or the jobs need different pixels.
    """

    def __init__(self, assignments: Sequence[Assignment], *, threads: int) -> None:
        device = device_here()
        self._environment = environment_here(device)
        self._pixels = _shared_pixels([each.job for each in assignments], threads, device)
        # One thread does all of torch's work. OpenMP makes a team for each thread that computes. If the teams have more
        # threads than there are cores, these sleep between steps, and the speed falls to a quarter.
        self._compute = ThreadPoolExecutor(1, "compute", torch.set_num_threads, (threads,))
        self._runs = [self._prepare(each, device) for each in assignments]
        self._turn = threading.Lock()  # held by the shard that uses the models

    def try_out(self, task: ShardTask, images: int, *, run: int = 0) -> TriedOut:
        """Vote on the first images of a shard for one run, and publish nothing.

        Args:
            task: the shard.
            images: how many at most.
            run: position of the run among the assignments.
        Raises:
            ShardError: the tar cannot be certified whole.
        """
        prepared = self._runs[run]
        with (
            naming(task.shard),
            self._pixels.open(task.shard, task.limit) as shard,
            closing(shard.batches()) as batches,
        ):
            voted = chain.from_iterable(self._rows(task, batch, prepared.voter) for batch in batches)
            rows = list(islice(voted, images))
        job = prepared.voter.job
        notice = preprocess_notice(job)
        return TriedOut(
            Counter(row.status for row in rows),
            next((f"{row.key}: {row.error}" for row in rows if row.votes is None), None),
            LabelCounts() if job.images.label is None else _count_labels(rows, prepared.voter),
            () if notice is None else (notice,),
        )

    def introduce(self, *, run: int = 0) -> Introduction:
        """Classify an image that is the same on every machine; `run` as for `try_out`."""
        logits = self._computed(self._runs[run].voter.sample_logits)
        return Introduction(platform.node(), self._environment, VOTES_VERSION, logits)

    def certify(self, task: ShardTask) -> Generator[int | ShardReport, None, None]:
        """Certify a shard and publish its files: the number of rows done after every batch, then a report per run.

        Two threads may each certify a shard: the votes of one are computed while the other fetches and decodes, or
        publishes.

        Raises:
            ShardError: the tar cannot be certified whole.
        """
        with naming(task.shard):
            yield from self._certify(task)

    def _certify(self, task: ShardTask) -> Generator[int | ShardReport, None, None]:
        start = time.monotonic()
        with self._pixels.open(task.shard, task.limit) as shard:
            with closing(ahead(shard.batches(), _BATCHES_AHEAD)) as batches:
                voted = yield from self._vote(task, batches)
            tar = TarFacts(shard.sha256(), shard.contents.left_out, voted.rotated_images)
        _require_all_images(task, len(voted.rows[0]))
        for run, rows in zip(self._runs, voted.rows, strict=True):
            certified = with_certificates(rows, run.voter.family, run.voter.certify)
            published = run.publication.publish(task, certified, tar, seconds=time.monotonic() - start)
            yield ShardReport(
                task,
                dict(Counter(row.status for row in rows)),
                seconds=time.monotonic() - start,
                turn_s=voted.turn_s,
                waited_s=voted.waited_s,
                published=published,
                node=platform.node(),
            )

    def _vote(self, task: ShardTask, batches: Iterator[Batch]) -> Generator[int, None, _Voted]:
        """All votes on a shard, in its turn: the number of rows done after every batch."""
        rows: list[list[Row]] = [[] for _ in self._runs]
        rotated, waited_s = 0, 0.0
        batch = next(batches, None)  # before the turn: another shard computes meanwhile
        with self._turn:
            began = time.monotonic()
            while batch is not None:
                for done, run in zip(rows, self._runs, strict=True):
                    done += self._rows(task, batch, run.voter)
                rotated += sum(sample.rotated for sample in batch.samples)
                yield len(rows[0])
                asked = time.monotonic()
                batch = next(batches, None)
                waited_s += time.monotonic() - asked
            return _Voted(rows, rotated, time.monotonic() - began, waited_s)

    def _rows(self, task: ShardTask, batch: Batch, voter: JobVoter) -> list[Row]:
        """The rows of a batch, with votes and margins where images have pixels."""
        rows = [row_of(task.shard.name, sample) for sample in batch.samples]
        if batch.pixels is not None:
            votes = self._computed(voter.vote, batch.pixels)
            for place, position in enumerate(batch.readable):
                rows[position] = with_votes(rows[position], votes, place)
        return rows

    def _computed(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function of torch in the thread that computes."""
        return self._compute.submit(function, *arguments).result()

    def _prepare(self, assignment: Assignment, device: torch.device) -> _Prepared:
        job, store = assignment.job, AnyStore(assignment.job.storage)
        if store.find(f"{assignment.run_url}/{RUN_JSON}") is None:
            raise RequestError(
                f"output: {platform.node()} does not see {assignment.run_url}/{RUN_JSON}; use a folder that all "
                "machines share"
            )
        ablations = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
        voter = JobVoter(job, self._load(assignment, store, device), ablations)
        publication = Publication(
            job,
            assignment.run_id,
            assignment.run_url,
            store,
            ablations.num_ablations,
            self._pixels.images_per_batch,
            self._environment,
        )
        return _Prepared(voter, publication)

    def _load(self, assignment: Assignment, store: Store, device: torch.device) -> Smoothed:
        job = assignment.job
        with store.local(job.model.checkpoint) as checkpoint:
            if sha256_of(checkpoint) != assignment.checkpoint_sha256:
                raise RequestError(f"{job.model.checkpoint} changed since the run was planned; start again")
            load = partial(load_voter, allow_code=assignment.allow_code)
            return self._computed(load, job, checkpoint, assignment.checkpoint_key, device)


def _shared_pixels(jobs: Sequence[Job], threads: int, device: torch.device) -> PixelReader:
    """One reader of the pixels for all jobs."""
    first, *others = [
        PixelReader(
            job.images,
            job.preprocess,
            job.model.classes,
            job.execution.images_per_batch or auto_images_per_batch(device),
            threads,
            AnyStore(job.storage),
        )
        for job in jobs
    ]
    for other in others:
        first.require_same_batches(other)
    return first


def _require_all_images(task: ShardTask, rows: int) -> None:
    if task.limit is None and task.shard.images not in (None, rows):
        raise ShardError(
            f"it holds {rows} images but its index file lists {task.shard.images}; fix the index, or list the tars in "
            "images.shards"
        )


def _count_labels(rows: Sequence[Row], voter: JobVoter) -> LabelCounts:
    return LabelCounts.of(
        [row.key for row in rows],
        [row.error if row.status == "label_error" else None for row in rows],
        numbers(row.label for row in rows),
        [predictions(rows, voter.predict), numbers(row.clean_prediction for row in rows)],
        images=voter.job.images,
        classes=voter.job.model.classes,
    )
