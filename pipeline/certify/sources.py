"""Which files of other runs may hold the rows of a run's shards: those of equal votes identity, name and size.

Whether such a file really comes from the same tar is known when its hash is compared with that of the tar
(workers/runs/adoption.py).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from smoothcert.manifests.errors import SmoothcertError
from smoothcert.manifests.identity import votes_identity_of
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.adoption import Source
from smoothcert.workers.runs.run import Run, find_run
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.storage.store import Store

_READERS = 8  # S3 answers a read after some 20 ms
_MOST_SOURCES = 3  # of a shard: a year of nights would offer hundreds


def sources_of(run: Run, todo: Sequence[ShardTask], *, across: bool) -> Mapping[int, Sequence[Source]]:
    """The files that may be taken over, by the index of the shard: of the youngest runs, the youngest first.

    Args:
        run: the run, in the folder that holds the others.
        todo: its shards without a published file.
        across: whether the votes of other code may be taken over.
    """
    if not todo:
        return {}
    found = defaultdict[int, list[Source]](list)
    for other, published in _alike(run, across=across):
        files = {
            (task.shard.name, task.shard.size, task.limit): task.file_name
            for task in other.tasks
            if task.file_name in published
        }
        for task in todo:
            file = files.get((task.shard.name, task.shard.size, task.limit))
            if file is not None and len(found[task.index]) < _MOST_SOURCES:
                found[task.index].append(Source(other.run_id, other.url, file))
    return {index: sources for index, sources in found.items() if sources}


def _alike(run: Run, *, across: bool) -> Iterable[tuple[Run, set[str]]]:
    """The other runs of equal votes identity in the folder of the run, the youngest first, and their files."""
    output, _, _ = run.url.rpartition("/")
    mine = _votes_identity(run, across=across)
    urls = (url for url in run.store.folders(output) if url.rpartition("/")[2] != run.run_id)
    others = map_ahead(lambda url: _run_at(url, run.store), urls, threads=_READERS, count=_READERS)
    alike = [other for other in others if other is not None and _votes_identity(other[0], across=across) == mine]
    return sorted(alike, key=lambda other: other[0].record.created or "", reverse=True)


def _run_at(url: str, store: Store) -> tuple[Run, set[str]] | None:
    """The run in a folder and its files, or None. A damaged one is as good as none: `smoothcert runs` names it.

    So is a copy under another name: a file names its origin by the run's id, and is sought there.
    """
    try:
        found = find_run(url, store)
        is_one = found is not None and found.run_id == url.rpartition("/")[2]
        return (found, found.published()) if found is not None and is_one else None
    except SmoothcertError:
        return None


def _votes_identity(run: Run, *, across: bool) -> object:
    identity = votes_identity_of(run.record.identity)
    return {key: value for key, value in identity.items() if not (across and key == "votes_version")}
