"""Has the data of a run changed since the run began?

Equal names and sizes can hide other data: tars are padded, and the run id covers only their names and sizes. So a tar
with a new fingerprint is hashed again if its votes are already published.
"""

from collections.abc import Sequence

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.workers.runs.json_file import damaged
from smoothcert.workers.runs.published import parse_metadata
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.storage.store import sha256_of
from smoothcert.workers.tars.fetched import naming
from smoothcert.workers.tars.tar_headers import read_tar


def refuse_changed_data(run: Run, tasks: Sequence[ShardTask], published: set[str]) -> None:
    """Compare the published files with the present tars.

    Args:
        run: as it began.
        tasks: its shards at their present URLs and fingerprints.
        published: names of the published files.
    Raises:
        RequestError: a tar has other content, or the limit falls on other images.
        RunError: a published file or a tar is damaged.
    """
    if [task.limit for task in run.tasks] != [task.limit for task in tasks]:
        raise RequestError(
            f"images.shards: the first {run.job.images.limit} images do not lie in the same tars as when {run.url} was "
            "begun, under the same names and sizes; set images.version to tell the two apart"
        )
    for then, now in zip(run.tasks, tasks, strict=True):
        if then.shard.fingerprint != now.shard.fingerprint and now.file_name in published:
            _refuse_other_content(run, now)


def _refuse_other_content(run: Run, task: ShardTask) -> None:
    url = f"{run.url}/{task.file_name}"
    then = parse_metadata(run.store.read(url), url).shard_sha256
    if then is None:
        raise RunError(damaged(url, "shard_sha256 is missing"))
    with run.store.local(task.shard.url) as tar:
        if sha256_of(tar) == then:
            return
        with naming(task.shard):
            read_tar(tar, run.job.images)  # a broken copy is no other data
    raise RequestError(
        f"images.shards: {task.shard.url} has other content than when {run.url} was made, under the same name "
        "and size; set images.version to tell the two apart"
    )
