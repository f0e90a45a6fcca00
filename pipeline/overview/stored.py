"""What the runs of an output take in storage, how old they are, and which run has taken over files from which.

Not covered: which of them may be deleted (pipeline/prune/).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.files import FileEntry
from smoothcert.pipeline.overview.runs_list import RunInShort
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.published import adopted_from
from smoothcert.workers.storage.store import Store

_READERS = 8  # S3 answers a listing after some 50 ms
_DAY_S = 86_400


@dataclass(frozen=True)
class Stored:
    """A run in storage.

    Attributes:
        run: the run in short.
        size_bytes: of all files in its folder.
        modified: when the newest of them was written, in seconds since 1970.
        age_days: since the run began; None if run.json does not say when.
        adopts_from: number of files whose rows come from another run, by its id; None if a file is damaged.
        problem: what is damaged, in a line.
    """

    run: RunInShort
    size_bytes: int
    modified: float
    age_days: float | None
    adopts_from: Mapping[str, int] | None
    problem: str | None = None

    @property
    def run_id(self) -> str:
        return self.run.run.run_id

    @property
    def url(self) -> str:
        return self.run.run.url


def stored_of(runs: Sequence[RunInShort], now: datetime) -> list[Stored]:
    """Look at the files of runs.

    Args:
        runs: all runs of an output.
        now: in UTC.
    """
    return list(map_ahead(partial(_stored, now=now), runs, threads=_READERS, count=_READERS))


def as_json(stored: Sequence[Stored]) -> list[dict[str, Any]]:
    """The runs with the keys that `smoothcert runs --json` adds."""
    return [
        one.run.as_json()
        | {
            "size_bytes": one.size_bytes,
            "age_days": one.age_days,
            "adopts_from": None if one.adopts_from is None else dict(one.adopts_from),
            "adopted_by": [other.run_id for other in stored if one.run_id in (other.adopts_from or ())],
        }
        for one in stored
    ]


def files_below(url: str, store: Store) -> Iterator[FileEntry]:
    """All files in a folder and in the folders below it."""
    listing = store.listing(url)
    if listing is not None:
        yield from listing.files
        for folder in listing.folders:
            yield from files_below(folder, store)


def _stored(run: RunInShort, *, now: datetime) -> Stored:
    files, problem = list(files_below(run.run.url, run.run.store)), None
    try:
        sources = adopted_from(run.run, run.success)
    except RunError as error:
        sources, problem = None, str(error)
    return Stored(
        run,
        size_bytes=sum(entry.size for entry in files),
        modified=max((entry.modified for entry in files), default=0.0),
        age_days=None if run.begun is None else round((now - run.begun).total_seconds() / _DAY_S, 3),
        adopts_from=sources,
        problem=problem,
    )
