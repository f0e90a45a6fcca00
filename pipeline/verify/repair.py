"""`smoothcert repair`: move what is wrong in a run out of the way, so that the same command makes it again.

What is wrong is what `smoothcert verify` finds. Whole files of votes go to quarantine/, and _SUCCESS with them. Nothing
is deleted.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.check import verify
from smoothcert.pipeline.verify.entries import RUN_JSON, SUCCESS
from smoothcert.pipeline.verify.findings import Finding
from smoothcert.workers.runs.layout import QUARANTINE
from smoothcert.workers.storage.store import AnyStore


class Moved(NamedTuple):
    """A file that was moved, and where it is now; both relative to the run."""

    file: str
    to: str


def repair(url: str, storage: Storage = Storage(), processes: int = 1) -> list[Moved]:  # noqa: B008  frozen
    """Quarantine the files of a run that have problems.

    Args:
        url: the run's folder.
        storage: how to reach it.
        processes: number of processes that check files, as for `verify`.
    Returns:
        The files that were moved; none if nothing is wrong.
    Raises:
        RequestError: run.json is missing or damaged.
        RunError: a problem lies in a file that cannot be made again.
    """
    url = url.rstrip("/")
    wrong = _files_of(verify(url, storage=storage, processes=processes).findings)
    if wrong:
        wrong.add(SUCCESS)  # it names their hashes
    store, quarantine = AnyStore(storage), f"{QUARANTINE}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    moved = list[Moved]()
    for name in sorted(wrong):
        if store.find(f"{url}/{name}") is not None:
            store.move(f"{url}/{name}", f"{url}/{quarantine}/{name}")
            moved.append(Moved(name, f"{quarantine}/{name}"))
    return moved


def _files_of(findings: Iterable[Finding]) -> set[str]:
    files = set()
    for finding in findings:
        if finding.file == RUN_JSON:
            raise RunError(f"{finding.line}; this cannot be made again from the job: move the run away and start anew")
        files.add(finding.file)
    return files
