"""A run on disk: where it is, what run.json and _SUCCESS say, and how complete it is.

All state is in storage. Not covered: the names of the files (layout.py) and what they hold (records.py); making a run
(pipeline/certify/); reading the votes (published.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from smoothcert.manifests.ablation import ablation_in_words, accuracy_name
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.files import FileEntry
from smoothcert.manifests.identity import identity_of, run_id_of
from smoothcert.manifests.job import Job, Storage
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import instead_of
from smoothcert.workers.notebook import html_table
from smoothcert.workers.runs.json_file import parse
from smoothcert.workers.runs.layout import RUN_JSON, SUCCESS, VOTES
from smoothcert.workers.runs.records import RunRecord, SuccessRecord
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.storage.store import AnyStore, Store

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_MAX_SEARCHED_FOLDERS = 20


@dataclass(frozen=True, repr=False)
class Run:
    """The results of one identity.

    Attributes:
        url: OUTPUT/RUN_ID.
        record: what run.json says.
        store: the store that holds the run.
    """

    url: str
    record: RunRecord
    store: Store

    @property
    def run_id(self) -> str:
        return self.record.run_id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def partial(self) -> bool:
        return self.record.partial

    @property
    def checkpoint_sha256(self) -> str:
        return self.record.checkpoint.sha256

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, ...; empty if the run does not know them."""
        return self.record.class_names

    @cached_property
    def job(self) -> Job:
        """The job that began the run.

        Raises:
            RequestError: this version does not understand the job, or the job does not give the run's id.
        """
        try:
            job = Job.model_validate(self.record.job)
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"]))
            raise RequestError(f"{self.url}/{RUN_JSON}: its job is not valid, first at {field}; restore it") from None
        if not _gives_its_id(self.record, job):
            raise RequestError(
                f"{self.url}/{RUN_JSON} contradicts itself: its job does not give the id {self.run_id} (`smoothcert "
                "verify` says where); restore it"
            )
        return job

    @cached_property
    def tasks(self) -> tuple[ShardTask, ...]:
        """The shards with at least one image in the run, in order."""
        return tuple(
            ShardTask(index, entry.shard, entry.limit)
            for index, entry in enumerate(self.record.shards)
            if entry.limit != 0
        )

    def images(self, columns: Sequence[str] | None = None) -> "pa.Table":
        """A row per image of the published shards, in their order.

        Args:
            columns: of the files, in this order; None: all but `votes` and `margins`, which are large.
        Raises:
            RequestError: there is no such column, or nothing is published yet.
            RunError: a file is damaged.
        """
        from smoothcert.workers.runs.published import read_images  # published.py knows this file

        return read_images(self, columns)

    def votes(self) -> "NDArray[np.int32]":
        """[images, ablations]: the class of each vote, in the order of offsets; -1 in all of an image without votes.

        The images are those of `images`, in the same order. Errors are the same, too.
        """
        from smoothcert.workers.runs.published import read_votes

        return read_votes(self)

    def published_files(self) -> dict[str, FileEntry]:
        """The published files, by their names relative to the run."""
        return {f"{VOTES}/{Path(entry.url).name}": entry for entry in self.store.files(f"{self.url}/{VOTES}")}

    def published(self) -> set[str]:
        """Names of the published files, relative to the run."""
        return set(self.published_files())

    def published_tasks(self) -> tuple[ShardTask, ...]:
        published = self.published()
        return tuple(task for task in self.tasks if task.file_name in published)

    def missing(self) -> tuple[ShardTask, ...]:
        published = self.published()
        return tuple(task for task in self.tasks if task.file_name not in published)

    def no_files_yet(self) -> RequestError:
        """The error about a run that has published nothing."""
        return RequestError(f"{self.url} has no files of votes yet; run the job's command again to continue it")

    def success(self) -> SuccessRecord | None:
        """The content of _SUCCESS, or None if the run has none.

        Raises:
            RunError: _SUCCESS is damaged.
        """
        url = f"{self.url}/{SUCCESS}"
        if self.store.find(url) is None:
            return None
        return parse(SuccessRecord, self.store.read(url), url)

    def complete(self) -> bool:
        """Whether _SUCCESS exists and every shard is published.

        Raises:
            RunError: _SUCCESS is damaged.
        """
        return self.success() is not None and not self.missing()

    def __repr__(self) -> str:
        return f"<{self._title()}>"

    def _repr_html_(self) -> str:
        """The run and its figures, as a notebook shows them."""
        return html_table(self._title(), self._facts())

    def _title(self) -> str:
        return f"Run {self.run_id}: {self.name}{', PARTIAL' if self.partial else ''}"

    def _facts(self) -> Iterator[tuple[str, str]]:
        job, success, missing = self.job, self.success(), len(self.missing())
        model = PurePosixPath(job.model.checkpoint).name
        yield "folder", self.url
        yield "model", f"{job.model.architecture}, {model}, SHA-256 {self.checkpoint_sha256[:12]}"
        yield "ablation", ablation_in_words(job.ablation)
        yield "state", "UNFINISHED" if missing or success is None else "complete"
        yield "shards", f"{len(self.tasks) - missing:,} of {len(self.tasks):,}"
        if success is None:
            return
        yield "images", f"{success.rows:,}"
        yield "clean accuracy", _percent(success.clean_accuracy)
        yield accuracy_name(job.ablation), _percent(success.smoothed_accuracy)
        for entry in success.certified:
            yield f"certified against {entry.against}", _percent(entry.exact)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _gives_its_id(record: RunRecord, job: Job) -> bool:
    """Whether the job gives the recorded identity, and this identity gives the run's id."""
    given = identity_of(
        job,
        [entry.shard for entry in record.shards],
        checkpoint_sha256=record.checkpoint.sha256,
        checkpoint_key=record.checkpoint.key,
        limit=job.images.limit if record.partial else None,
    )
    given["votes_version"] = record.identity.get("votes_version")  # of the code that began the run
    return given == record.identity and run_id_of(record.identity) == record.run_id


def find_run(url: str, store: Store) -> Run | None:
    """The run at a URL, or None if there is no run.json.

    Raises:
        RequestError: its run.json is damaged.
    """
    record_url = f"{url}/{RUN_JSON}"
    if store.find(record_url) is None:
        return None
    return Run(url, parse(RunRecord, store.read(record_url), record_url), store)


def open_run(url: str | Path, storage: Storage = Storage()) -> Run:  # noqa: B008  frozen
    """The run in a folder that a user named, or at a URL, reached as `storage` says.

    Raises:
        RequestError: there is no run, or its run.json is damaged.
    """
    url = str(url)
    url = url.rstrip("/") if "://" in url else str(Path(url).absolute())
    store = AnyStore(storage)
    run = find_run(url, store)
    if run is None:
        raise RequestError(f"{url}: no run here: {_instead_of_run(url, store)}")
    return run


def run_of(run: Run | str | Path) -> Run:
    """The run, or the one at the path or URL that a caller gave in its place.

    Raises:
        RequestError: it is neither, there is no run, or its run.json is damaged.
    """
    if isinstance(run, Run):
        return run
    if isinstance(run, str | Path):
        return open_run(run)
    raise RequestError(f"run: expected a Run, or its path or URL, not {type(run).__name__}")


def _instead_of_run(url: str, store: Store) -> str:
    """Why there is no run, and which runs there are nearby."""
    if store.listing(url, most=1) is None:
        return f"the folder does not exist; {instead_of(url, store)}"
    folders = store.folders(url)[:_MAX_SEARCHED_FOLDERS]
    if runs := [Path(folder).name for folder in folders if store.find(f"{folder}/{RUN_JSON}") is not None]:
        return f"its folders hold some; name {url}/RUN_ID, where RUN_ID is one of {listed(runs)}"
    return f"there is no {RUN_JSON}; name OUTPUT/RUN_ID (`smoothcert runs OUTPUT` lists them)"
