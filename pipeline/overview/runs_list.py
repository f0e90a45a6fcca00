"""`smoothcert runs`: a line about each run of an output. Reads storage alone, so it works on any machine.

Not covered: how the list looks (tables.py).
"""

from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import NamedTuple

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.job import Ablation, Storage
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import instead_of
from smoothcert.pipeline.console.looks import DASH, checkpoint, percent, plain, short_hash
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.run import Run, find_run
from smoothcert.workers.storage.store import AnyStore

_MAX_SEARCHED_NAMES = 1000


class RunInShort(NamedTuple):
    """A run as text, the columns of `smoothcert runs`.

    Accuracies are those of _SUCCESS: a dash without it, or without labels.
    """

    run: str
    begun: str
    job: str
    architecture: str
    checkpoint: str
    sha256: str
    ablation: str
    limit: str
    shards: str
    images: str
    clean: str
    smoothed: str
    state: str


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
    return RunsOfOutput(sorted(runs, key=lambda run: (run.begun, run.run)), damaged)


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
    job, success, total = run.job, run.success(), len(run.tasks)
    published = total - len(run.missing())
    complete = success is not None and published == total
    return RunInShort(
        run=run.run_id,
        begun=_minute(run.record.created),
        job=plain(run.name),
        architecture=job.model.architecture,
        checkpoint=plain(PurePosixPath(job.model.checkpoint).name),
        sha256=short_hash(run.checkpoint_sha256),
        ablation=ablation_in_words(job.ablation),
        limit=f"{job.images.limit:,}" if run.partial else "",
        shards=f"{published:,}/{total:,}",
        images="" if success is None else f"{success.rows:,}",
        clean=DASH if success is None else percent(success.clean_accuracy),
        smoothed=DASH if success is None else percent(success.smoothed_accuracy),
        state=("complete" if complete else "incomplete") + (" PARTIAL" if run.partial else ""),
    )


def _minute(created: str | None) -> str:
    """When a run began, in UTC; run.json may have been written by hand."""
    try:
        return f"{datetime.fromisoformat(created or '').astimezone(UTC):%Y-%m-%d %H:%M}"
    except ValueError:
        return DASH


def run_in_words(run: Run) -> str:
    """Which run it is: job, id, model, and whether it holds all of the data."""
    model = checkpoint(run.job.model.checkpoint, run.checkpoint_sha256)
    partial = [f"PARTIAL: the first {run.job.images.limit:,} images"] if run.partial else []
    return ", ".join([run.name, f"run {run.run_id}", f"model {model}", *partial])


def ablation_in_words(ablation: Ablation) -> str:
    inside = "" if ablation.edges == "wrap" else f" {ablation.edges}"
    return f"{ablation.kind} {ablation.size} stride {ablation.stride}{inside}"
