"""How many images a shard of a plan holds, before it is certified."""

from typing import NamedTuple

from smoothcert.pipeline.certify.plan import Plan
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.tars.tar_headers import LeftOut, read_tar


class Expected(NamedTuple):
    """What a shard will give.

    Attributes:
        images: its rows; None if the tar would have to be fetched to count them.
        left_out: what of the tar is not in the run, if the tar was read to count.
    """

    images: int | None
    left_out: LeftOut = LeftOut()


def expect(task: ShardTask, plan: Plan) -> Expected:
    """Take the count from the limit or the index file; otherwise read the headers of a local tar.

    Raises:
        ShardError: the tar is not whole.
    """
    if task.known_images is not None or "://" in task.shard.url:
        return Expected(task.known_images)
    with plan.run.store.local(task.shard.url) as tar:
        contents = read_tar(tar, plan.job.images)
    return Expected(len(contents.images), contents.left_out)


def count_images(task: ShardTask, plan: Plan) -> int | None:
    """The rows that a shard will give; None and errors as for `expect`."""
    return expect(task, plan).images
