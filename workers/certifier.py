"""One shard in, one published Parquet file out, per run.

    tar           tars/fetched.py        once for all runs
    adoption      runs/adoption.py       takes over the rows of another run, if they come from the same tar
    pixels        tars/pixels.py         ahead, while another shard has its turn; once for runs that see the same pixels
    votes         votes/job_voter.py     in its turn: the models serve one shard at a time
    certificates  certificates/          after its turn
    file          runs/publication.py    last

This file ties these together. If one run fails, the others get the files that they would have had without it.

It runs on a machine without ray. Not covered: which shards there are, and which machine certifies them (pipeline/).
"""

import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import torch

from smoothcert.manifests.errors import RequestError, ShardError, SmoothcertError
from smoothcert.manifests.identity import VOTES_VERSION
from smoothcert.manifests.job import Job
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.iteration import ahead
from smoothcert.workers.networks.classifiers import preprocess_notice
from smoothcert.workers.rows import numbers, predictions, row_of, with_certificates, with_votes
from smoothcert.workers.runs import votes_table
from smoothcert.workers.runs.adoption import Adopted, Adoption, Source
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.publication import Publication, TarFacts
from smoothcert.workers.runs.shard_task import Introduction, Refusal, ShardReport, ShardTask, Step, TriedOut
from smoothcert.workers.runs.votes_table import Row
from smoothcert.workers.storage.store import AnyStore, Store, sha256_of
from smoothcert.workers.tars.card_decoder import card_for, decoder_of
from smoothcert.workers.tars.fetched import FetchedShard, fetched, naming
from smoothcert.workers.tars.label_counts import LabelCounts
from smoothcert.workers.tars.pixels import Batch, PixelReader, PixelSettings
from smoothcert.workers.votes.job_voter import JobVoter
from smoothcert.workers.votes.machine import auto_images_per_batch, device_here, environment_here, memory_bytes
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
        sources: files of other runs that may hold the rows of a shard, by the shard's index.
        adopt_across: whether these may come from other versions or devices.
    """

    job: Job
    run_id: str
    run_url: str
    checkpoint_sha256: str
    checkpoint_key: str | None
    allow_code: bool = False
    sources: Mapping[int, Sequence[Source]] = field(default_factory=dict)
    adopt_across: bool = False


class _Prepared(NamedTuple):
    """What votes and what publishes for a run."""

    voter: JobVoter
    publication: Publication


@dataclass
class _Voted:
    """A shard after the turn of a run.

    Attributes:
        rows: without certificates.
        rotated_images: number of images whose EXIF orientation says that the stored pixels are not upright.
        turn_s: seconds in which the model worked for the run, with its share of `waited_s`.
        waited_s: seconds of the turn spent waiting for decoded images.
        error: what ended the votes, if anything did.
    """

    rows: list[Row] = field(default_factory=list)
    rotated_images: int = 0
    turn_s: float = 0.0
    waited_s: float = 0.0
    error: Exception | None = None


class Certifier:
    """Works for several runs over the same tars. A model is loaded when its run first needs it.

    Args:
        assignments: at least one.
        threads: CPU threads to use.
    """

    def __init__(self, assignments: Sequence[Assignment], *, threads: int) -> None:
        self._device = device_here()
        self._environment = environment_here(self._device)
        self._threads = threads
        self._assignments = {each.run_id: each for each in assignments}
        self._readers = {each.run_id: _reader_of(each.job, threads, self._device) for each in assignments}
        self._store = AnyStore(assignments[0].job.storage)
        # One thread does all of torch's work. OpenMP makes a team for each thread that computes. If the teams have more
        # threads than there are cores, these sleep between steps, and the speed falls to a quarter.
        self._computing = ThreadPoolExecutor(1, "compute", torch.set_num_threads, (threads,))
        self._runs: dict[str, _Prepared] = {}
        self._loading = threading.Lock()
        self._admitted, self._refused = set[str](), set[str]()
        self._turn = threading.Lock()  # held by the shard that uses the models

    def try_out(self, task: ShardTask, images: int, run_id: str) -> TriedOut:
        """Vote on the first images of a shard for one run, and publish nothing.

        Args:
            task: the shard.
            images: how many at most.
            run_id: the run.
        Raises:
            RequestError: the run's checkpoint is not the planned one, or does not fit its network.
            ShardError: the tar cannot be certified whole.
        """
        voter = self.voter(run_id)
        with (
            naming(task.shard),
            fetched(task.shard, self._store) as shard,
            closing(self._readers[run_id].batches(shard, task.limit)) as batches,
        ):
            voted = chain.from_iterable(self._rows(task, batch, voter) for batch in batches)
            rows = list(islice(voted, images))
        notice = preprocess_notice(voter.job)
        return TriedOut(
            Counter(row.status for row in rows),
            next((f"{row.key}: {row.error}" for row in rows if row.votes is None), None),
            LabelCounts() if voter.job.images.label is None else _count_labels(rows, voter),
            () if notice is None else (notice,),
        )

    def introduce(self, run_id: str) -> Introduction:
        """Classify an image that is the same on every machine, for one run; errors as for `try_out`."""
        logits = self.compute(self.voter(run_id).sample_logits)
        environment = self._environment_of(self._assignments[run_id].job)
        return Introduction(run_id, platform.node(), environment, VOTES_VERSION, logits)

    def voter(self, run_id: str) -> JobVoter:
        """The model of a run, loaded when it is first asked for; errors as for `try_out`. Call it with `compute`."""
        return self._prepared(run_id).voter

    def compute(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function of torch in the thread that computes."""
        return self._computing.submit(function, *arguments).result()

    def memory_bytes(self, gpus: float) -> int:
        """This process's share of the memory: by its GPUs, or on a CPU by its threads."""
        share = gpus if self._device.type == "cuda" else self._threads / (os.cpu_count() or 1)
        return int(memory_bytes(self._device) * min(1.0, share))

    def refuse(self, run_id: str) -> None:
        """Work no more for a run: whoever heard its introduction objects."""
        self._refused.add(run_id)

    def certify(self, task: ShardTask, run_ids: Collection[str] | None = None) -> Generator[Step, None, None]:
        """Certify a shard and publish its files.

        Two threads may each certify a shard: the votes of one are computed while the other fetches and decodes, or
        publishes.

        Args:
            task: the shard.
            run_ids: the runs that lack it; None: all.
        Yields:
            For each run a report, or a Refusal if the request is wrong. Before the first votes of a run, its
            Introduction. After every batch, the number of images that are done.
        Raises:
            ShardError: the tar cannot be certified whole.
            Exception: the first error of a run. The files of the other runs are published before it is raised.
        """
        wanted = [run_id for run_id in self._assignments if run_ids is None or run_id in run_ids]
        start = time.monotonic()
        errors = list[Exception]()
        with naming(task.shard):
            with fetched(task.shard, self._store) as shard:
                missing = yield from self._adopt(task, shard, wanted, start, errors)
                ready = yield from self._ready(missing, errors)
                voted = yield from self._vote(task, shard, ready)
                tars = {
                    run_id: TarFacts(
                        shard.sha256, shard.contents(self._readers[run_id].images).left_out, one.rotated_images
                    )
                    for run_id, one in voted.items()
                }
            for run_id, one in voted.items():
                try:
                    report = self._publish(task, run_id, one, tars[run_id], start)
                except Exception as error:
                    yield from _set_aside(run_id, error, errors)
                else:
                    yield report
            if errors:
                raise min(errors, key=_is_mild)

    def _adopt(
        self, task: ShardTask, shard: FetchedShard, run_ids: Sequence[str], start: float, errors: list[Exception]
    ) -> Generator[ShardReport | Refusal, None, list[str]]:
        """Take over what other runs have published from the same tar. Returns the runs that still lack the shard."""
        missing = []
        for run_id in run_ids:
            try:
                found = self._adopted(task, shard, self._assignments[run_id])
            except Exception as error:
                yield from _set_aside(run_id, error, errors)
                continue
            if found is None:
                missing.append(run_id)
                continue
            yield ShardReport(
                run_id,
                task,
                found.statuses,
                seconds=time.monotonic() - start,
                turn_s=0.0,
                waited_s=0.0,
                published=found.file.ours,
                node=platform.node(),
                adopted_from=found.run_id,
                hashes=found.file.hashes,
            )
        return missing

    def _adopted(self, task: ShardTask, shard: FetchedShard, assignment: Assignment) -> Adopted | None:
        """The file that is taken over for a shard of a run, if there is one."""
        sources = assignment.sources.get(task.index, ())
        if not sources or not _sees(assignment):
            return None
        adoption = Adoption(
            assignment.run_id,
            assignment.run_url,
            AnyStore(assignment.job.storage),
            self._environment_of(assignment.job),
            _schema_of(assignment.job),
            assignment.adopt_across,
        )
        found = (adoption.adopt(task, source, shard.sha256) for source in sources)
        return next((adopted for adopted in found if adopted is not None), None)

    def _ready(
        self, run_ids: Sequence[str], errors: list[Exception]
    ) -> Generator[Introduction | Refusal, None, list[str]]:
        """Load the models and introduce them. Returns the runs that can vote."""
        ready = []
        for run_id in run_ids:
            if run_id not in self._admitted:
                try:
                    introduction = self.introduce(run_id)
                except Exception as error:
                    yield from _set_aside(run_id, error, errors)
                    continue
                yield introduction  # who hears it may refuse the run before we go on
            if run_id not in self._refused:
                self._admitted.add(run_id)
                ready.append(run_id)
        return ready

    def _vote(
        self, task: ShardTask, shard: FetchedShard, run_ids: Sequence[str]
    ) -> Generator[int, None, dict[str, _Voted]]:
        """The votes of each run on a shard: the number of images done after every batch."""
        voted = {run_id: _Voted() for run_id in run_ids}
        together: dict[PixelSettings, list[str]] = {}  # the runs that see the same pixels
        for run_id in run_ids:
            together.setdefault(self._readers[run_id].settings, []).append(run_id)
        images = done = 0
        for number, group in enumerate(together.values()):
            decoded = self._readers[group[0]].batches(shard, task.limit)
            try:
                with (
                    closing(ahead(decoded, _BATCHES_AHEAD)) as batches,
                    closing(self._vote_together(task, batches, {run_id: voted[run_id] for run_id in group})) as steps,
                ):
                    for done in steps:
                        yield (number * images + done) // len(together)
            except ShardError:  # the tar's fault, so that of all runs
                raise
            except Exception as error:  # a decoder's: other runs may have another one
                for run_id in group:
                    voted[run_id].error = voted[run_id].error or error
            images = done
        for one in voted.values():
            if one.error is None:
                _require_all_images(task, len(one.rows))
        return voted

    def _vote_together(
        self, task: ShardTask, batches: Iterator[Batch], voted: Mapping[str, _Voted]
    ) -> Generator[int, None, None]:
        """Add the votes on a shard of runs that see the same pixels, in its turn: the number of images done so far."""
        batch, done = next(batches, None), 0  # before the turn: another shard computes meanwhile
        with self._turn:
            while batch is not None:
                voting = {run_id: one for run_id, one in voted.items() if one.error is None}
                if not voting:
                    return
                for run_id, one in voting.items():
                    self._add_votes(task, batch, run_id, one)
                done += len(batch.samples)
                yield done
                asked = time.monotonic()
                batch = next(batches, None)
                waited_s = (time.monotonic() - asked) / len(voting)
                for one in voting.values():
                    one.waited_s += waited_s
                    one.turn_s += waited_s

    def _add_votes(self, task: ShardTask, batch: Batch, run_id: str, voted: _Voted) -> None:
        """Add the votes of a run on a batch, or its error, which must not end the other runs."""
        began = time.monotonic()
        try:
            voted.rows += self._rows(task, batch, self._runs[run_id].voter)
            voted.rotated_images += sum(sample.rotated for sample in batch.samples)
        except Exception as error:  # raised when the other runs have their files
            voted.error = error
        voted.turn_s += time.monotonic() - began

    def _rows(self, task: ShardTask, batch: Batch, voter: JobVoter) -> list[Row]:
        """The rows of a batch, with votes and margins where images have pixels."""
        rows = [row_of(task.shard.name, sample) for sample in batch.samples]
        if batch.pixels is not None:
            votes = self.compute(voter.vote, batch.pixels)
            for place, position in enumerate(batch.readable):
                rows[position] = with_votes(rows[position], votes, place)
        return rows

    def _publish(self, task: ShardTask, run_id: str, voted: _Voted, tar: TarFacts, start: float) -> ShardReport:
        """Publish the file of a run. Raises the error that ended its votes, if there is one."""
        if voted.error is not None:
            raise voted.error
        voter, publication = self._runs[run_id]
        certified = with_certificates(voted.rows, voter.family, voter.certify)
        published = publication.publish(task, certified, tar, seconds=time.monotonic() - start)
        statuses = dict(Counter(row.status for row in voted.rows))
        return ShardReport(
            run_id,
            task,
            statuses,
            seconds=time.monotonic() - start,
            turn_s=voted.turn_s,
            waited_s=voted.waited_s,
            published=published.ours,
            node=platform.node(),
            hashes=published.hashes,
        )

    def _prepared(self, run_id: str) -> _Prepared:
        """The model and the publication of a run, loaded once.

        Raises:
            RequestError: this machine does not see the run or lacks its decoder, or its checkpoint cannot be used.
        """
        with self._loading:
            if run_id not in self._runs:
                self._runs[run_id] = self._prepare(self._assignments[run_id])
            return self._runs[run_id]

    def _prepare(self, assignment: Assignment) -> _Prepared:
        job, store = assignment.job, AnyStore(assignment.job.storage)
        if not _sees(assignment):
            raise RequestError(
                f"output: {platform.node()} does not see {assignment.run_url}/{RUN_JSON}; use a folder that all "
                "machines share"
            )
        card_for(job.preprocess)  # a machine that lacks the decoder is refused before the first vote
        ablations = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
        voter = JobVoter(job, self._load(assignment, store), ablations)
        publication = Publication(
            job,
            assignment.run_id,
            assignment.run_url,
            store,
            ablations.num_ablations,
            self._readers[assignment.run_id].images_per_batch,
            self._environment_of(job),
        )
        return _Prepared(voter, publication)

    def _environment_of(self, job: Job) -> dict[str, Any]:
        """Versions, decoder and device that make the votes of a job here."""
        return self._environment | {"decoder": decoder_of(job.preprocess)}

    def _load(self, assignment: Assignment, store: Store) -> Smoothed:
        job = assignment.job
        with store.local(job.model.checkpoint) as checkpoint:
            if sha256_of(checkpoint) != assignment.checkpoint_sha256:
                raise RequestError(f"{job.model.checkpoint} changed since the run was planned; start again")
            load = partial(load_voter, allow_code=assignment.allow_code)
            return self.compute(load, job, checkpoint, assignment.checkpoint_key, self._device)


def _set_aside(run_id: str, error: Exception, errors: list[Exception]) -> Iterator[Refusal]:
    """A run fails, and the others go on: a wrong request is said at once, any other error is raised after them."""
    if isinstance(error, RequestError):
        yield Refusal(run_id, str(error))
    else:
        errors.append(error)


def _is_mild(error: Exception) -> tuple[bool, bool]:
    """What an error costs, the dearest first: it broke the process; the shard is tried again; it fails for good."""
    return isinstance(error, SmoothcertError), isinstance(error, ShardError)


def _reader_of(job: Job, threads: int, device: torch.device) -> PixelReader:
    """What decodes the images of a job."""
    images_per_batch = job.execution.images_per_batch or auto_images_per_batch(device)
    return PixelReader(job.images, job.preprocess, job.model.classes, images_per_batch, threads)


def _schema_of(job: Job) -> pa.Schema:
    """The columns of a run of a job."""
    ablations = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
    return votes_table.schema(ablations.num_ablations, family_of(job.ablation))


def _sees(assignment: Assignment) -> bool:
    """Whether this machine sees the folder of the run."""
    return AnyStore(assignment.job.storage).find(f"{assignment.run_url}/{RUN_JSON}") is not None


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
