"""`smoothcert repair`: move what is wrong in a run out of the way, so that the same command makes it again.

What is wrong is what `smoothcert verify` finds: whole files of votes go to quarantine/, and _SUCCESS with them.
Nothing is deleted.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.verify import Report, verify
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.storage.store import AnyStore

_END_OF_NAME = re.compile(r"\.parquet|^_SUCCESS")


def repair(url: str, storage: Storage = Storage()) -> list[str]:  # noqa: B008  frozen
    """Quarantine the files of a run that have problems.

    Args:
        url: the run's folder.
        storage: how to reach it.
    Returns:
        A line for each file that was moved; none where nothing is wrong.
    Raises:
        RequestError: run.json is missing or damaged.
        RunError: a problem is not one of a file that can be made again.
    """
    url = url.rstrip("/")
    report, run = verify(url, storage=storage), open_run(url, storage)
    wrong = _files_of(report, {"_SUCCESS", *run.published(), *(task.file_name for task in run.tasks)})
    if wrong:
        wrong.add("_SUCCESS")  # it names their hashes
    store, quarantine = AnyStore(storage), f"quarantine/{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    moved = []
    for name in sorted(wrong):
        if store.find(f"{url}/{name}") is not None:
            store.move(f"{url}/{name}", f"{url}/{quarantine}/{name}")
            moved.append(f"{name} is now {quarantine}/{name}")
    return moved


def _files_of(report: Report, names: Collection[str]) -> set[str]:
    files = set()
    for problem in report.problems:  # each begins with the name of its file, in which there may be spaces
        ends = [match.end() for match in _END_OF_NAME.finditer(problem)]
        name = next((problem[:end] for end in reversed(ends) if problem[:end] in names), None)
        if name is None:
            raise RunError(f"{problem}; this cannot be made again from the job: move the run away and start anew")
        files.add(name)
    return files
