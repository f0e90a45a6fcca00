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

_READERS = 8  # S3 answers a read after some 20 ms


def sources_of(run: Run, todo: Sequence[ShardTask], *, across: bool) -> Mapping[int, Sequence[Source]]:
    """The files that may be taken over, by the index of the shard; those of the youngest run first.

    Args:
        run: the run, in the folder that holds the others.
        todo: its shards without a published file.
        across: whether the votes of other code may be taken over.
    """
    if not todo:
        return {}
    found = defaultdict[int, list[Source]](list)
    for other in _alike(run, across=across):
        published = other.published()
        files = {
            (task.shard.name, task.shard.size, task.limit): task.file_name
            for task in other.tasks
            if task.file_name in published
        }
        for task in todo:
            if file := files.get((task.shard.name, task.shard.size, task.limit)):
                found[task.index].append(Source(other.run_id, other.url, file))
    return dict(found)


def _alike(run: Run, *, across: bool) -> Iterable[Run]:
    """The other runs of equal votes identity in the folder of the run, the youngest first."""
    output, _, _ = run.url.rpartition("/")
    mine = _votes_identity(run, across=across)
    urls = (url for url in run.store.folders(output) if url.rpartition("/")[2] != run.run_id)
    others = map_ahead(lambda url: _run_at(url, run), urls, threads=_READERS, count=_READERS)
    alike = [other for other in others if other is not None and _votes_identity(other, across=across) == mine]
    return sorted(alike, key=lambda other: other.record.created or "", reverse=True)


def _run_at(url: str, run: Run) -> Run | None:
    """The run in a folder, or None. A damaged one is as good as none: `smoothcert runs` names it.

    So is a copy under another name: a file names its origin by the run's id, and is sought there.
    """
    try:
        found = find_run(url, run.store)
    except SmoothcertError:
        return None
    return found if found is not None and found.run_id == url.rpartition("/")[2] else None


def _votes_identity(run: Run, *, across: bool) -> object:
    identity = votes_identity_of(run.record.identity)
    return {key: value for key, value in identity.items() if not (across and key == "votes_version")}
