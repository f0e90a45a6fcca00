"""Reads the diaries that the drivers of a run left behind: what became of its shards, and the files they made.

A diary is a log. One that is damaged or missing makes reading slower, and changes no figure.

Not covered: writing one (pipeline/certify/diary.py).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from smoothcert.manifests.errors import RunError
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.file_hashes import FileHashes
from smoothcert.workers.runs.json_file import parse
from smoothcert.workers.runs.layout import DRIVERS
from smoothcert.workers.runs.records import AttemptRecord, DriverRecord
from smoothcert.workers.runs.run import Run

_READERS = 8  # S3 answers a read after some 20 ms


class KnownFile(NamedTuple):
    """A published file, as the actor that wrote or found it knew it.

    Attributes:
        hashes: of the file.
        statuses: number of rows of each status.
    """

    hashes: FileHashes
    statuses: Mapping[str, int]


@dataclass(frozen=True)
class StoredDiary:
    """What a driver wrote when it ended.

    Attributes:
        url: of the diary.
        node: name of the driver's machine; None if the diary cannot be read.
        outcomes: number of attempts at shards by what became of them.
        failed: the attempts that failed.
        files: those that its shards ended in, by their names relative to the run.
    """

    url: str
    node: str | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[AttemptRecord, ...] = ()
    files: Mapping[str, KnownFile] = field(default_factory=dict)


def diaries_of(run: Run) -> list[StoredDiary]:
    """All diaries of a run, in the order in which the drivers ended."""
    entries = sorted(run.store.files(f"{run.url}/{DRIVERS}"), key=lambda entry: entry.modified)
    urls = (entry.url for entry in entries)
    return list(map_ahead(partial(_read, run), urls, threads=_READERS, count=_READERS))


def known_files(diaries: Iterable[StoredDiary]) -> dict[str, KnownFile]:
    """The files that the diaries know, by name; of one that was made again, what the later diary says."""
    return {name: known for diary in diaries for name, known in diary.files.items()}


def _read(run: Run, url: str) -> StoredDiary:
    outcomes, failed, files = Counter[str](), list[AttemptRecord](), dict[str, KnownFile]()
    try:
        *lines, last = run.store.read(url).splitlines() or [b""]
        for line in lines:
            attempt = parse(AttemptRecord, line, url)
            outcomes[attempt.outcome] += 1
            if attempt.outcome == "failed":
                failed.append(attempt)
            if attempt.file and attempt.file_sha256 and attempt.footer_sha256:
                hashes = FileHashes(attempt.file_sha256, attempt.footer_sha256)
                files[attempt.file] = KnownFile(hashes, attempt.statuses)
        driver = parse(DriverRecord, last, url)
    except RunError:
        return StoredDiary(url)
    return StoredDiary(url, driver.node, outcomes, tuple(failed), files)
