"""`smoothcert runs`: the runs of an output in short. Reads storage alone, so it works on any machine.

Also which run it is, in words and in the keys that the JSON of all commands uses. Not covered: how the list looks
(tables.py).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.job import Storage
from smoothcert.manifests.locations import recorded_url
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import instead_of
from smoothcert.pipeline.console.looks import checkpoint
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.records import SuccessRecord
from smoothcert.workers.runs.run import Run, find_run
from smoothcert.workers.storage.store import AnyStore

_MAX_SEARCHED_NAMES = 1000
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class RunInShort:
    """A run without its rows.

    Attributes:
        run: the run.
        published: number of shards with a file of votes.
        success: the figures of _SUCCESS; None without it.
    """

    run: Run
    published: int
    success: SuccessRecord | None

    @property
    def complete(self) -> bool:
        """Whether _SUCCESS and all files are there."""
        return self.success is not None and self.published == len(self.run.tasks)

    @property
    def begun(self) -> datetime | None:
        """When the run began, in UTC; None if run.json, which may have been written by hand, does not say it."""
        try:
            return datetime.fromisoformat(self.run.record.created or "").astimezone(UTC)
        except ValueError:
            return None

    def as_json(self) -> dict[str, Any]:
        """The run in keys that all commands use; figures are those of _SUCCESS, null without it."""
        job, success = self.run.job, self.success
        return {
            **run_as_json(self.run, complete=self.complete, published=self.published),
            "begun": None if self.begun is None else self.begun.isoformat(timespec="seconds"),
            "architecture": job.model.architecture,
            "ablation": job.ablation.model_dump(),
            "limit": job.images.limit if self.run.partial else None,
            "images": None if success is None else success.rows,
            "clean_accuracy": None if success is None else success.clean_accuracy,
            "smoothed_accuracy": None if success is None else success.smoothed_accuracy,
        }


class RunsOfOutput(NamedTuple):
    """The runs of an output, the oldest first, and an error for each that is damaged."""

    runs: list[RunInShort]
    damaged: list[str]


def runs_of(output: str, storage: Storage = Storage()) -> RunsOfOutput:  # noqa: B008  frozen
    """Read the runs of an output.

    Args:
        output: the folder that holds them.
        storage: how to reach it.
    Raises:
        RequestError: there are none.
    """
    store = AnyStore(storage)
    runs, damaged = list[RunInShort](), list[str]()
    for url in store.folders(output):
        try:
            if (run := find_run(url, store)) is not None:
                runs.append(_in_short(run))
        except SmoothcertError as error:
            damaged.append(str(error))
    if not runs and not damaged:
        raise RequestError(f"{output} {_without_runs(output, store)}")
    return RunsOfOutput(sorted(runs, key=lambda one: (one.begun or _LONG_AGO, one.run.run_id)), damaged)


def _without_runs(output: str, store: AnyStore) -> str:
    """What the folder holds instead of runs, and what to do."""
    if store.find(output) is not None:
        return "is a file; name the `output` of a job"
    if (listing := store.listing(output, most=_MAX_SEARCHED_NAMES)) is None:
        return f"does not exist; {instead_of(output, store)}"
    names = [PurePosixPath(entry.url).name for entry in listing.files]
    if RUN_JSON in names:
        return f"is a run itself; name the folder that holds it, or use `smoothcert status {output}`"
    names += [f"{PurePosixPath(url).name}/" for url in listing.folders]
    return f"holds no run but {listed(names) or 'nothing'}; name the `output` of a job"


def _in_short(run: Run) -> RunInShort:
    success = run.success()
    _ = run.job  # a damaged job is an error here, not where it is shown
    return RunInShort(run, len(run.tasks) - len(run.missing()), success)


def run_as_json(run: Run, *, complete: bool, published: int) -> dict[str, Any]:
    """Which run it is and how far it has come, in the keys that the JSON of all commands uses.

    Args:
        run: the run.
        complete: whether _SUCCESS and all files are there.
        published: number of shards with a file of votes.
    """
    return {
        "run_id": run.run_id,
        "job": run.name,
        "path": run.url,
        "checkpoint": recorded_url(run.record.checkpoint.url or "") or None,
        "checkpoint_sha256": run.checkpoint_sha256,
        "complete": complete,
        "partial": run.partial,
        "shards": len(run.tasks),
        "published": published,
    }


def run_in_words(run: Run) -> str:
    """Which run it is: job, id, model, and whether it holds all of the data."""
    model = checkpoint(run.job.model.checkpoint, run.checkpoint_sha256)
    partial = [f"PARTIAL: the first {run.job.images.limit:,} images"] if run.partial else []
    return ", ".join([run.name, f"run {run.run_id}", f"model {model}", *partial])
