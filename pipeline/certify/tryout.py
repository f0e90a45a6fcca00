"""One actor votes on a few images before the fleet starts, and nothing is published.

Not covered: what the images show about the request (canary.py).
"""

from collections.abc import Sequence

from ray.exceptions import RayError

from smoothcert.manifests.errors import ShardError
from smoothcert.pipeline.certify.canary import Canary
from smoothcert.pipeline.certify.fleet import LOST, Fleet
from smoothcert.pipeline.cluster.ray_errors import cause_of
from smoothcert.pipeline.cluster.resources import alive_among
from smoothcert.workers.runs.shard_task import ShardTask, TriedOut

_IMAGES = 32  # of each shard


def try_out(fleet: Fleet, todo: Sequence[ShardTask]) -> tuple[str, ...]:
    """Vote on the first images of the smallest shards.

    Args:
        fleet: its first actor votes, and later certifies shards.
        todo: shards without a published file.
    Returns:
        What the user should know about the job, a line each.
    Raises:
        RequestError: the model cannot be loaded, no actor can start, or nearly all labels are wrong.
        RunError: nearly none of the images can be voted on, or no machine came.
    """
    scout, canary, notices = _Scout(fleet), Canary(fleet.plan.job), tuple[str, ...]()
    unpublished = {task.index for task in todo}
    for task in sorted(fleet.plan.tasks, key=lambda task: (task.index not in unpublished, task.shard.size)):
        # The last shards of a run may be odd ones, so a fault must show in published shards too.
        if canary.is_sure or (task.index not in unpublished and canary.fault() is None):
            break
        if tried := scout.try_out(task):
            canary.add(task, tried)
            notices = tried.notices
    if fault := canary.fault():
        raise fault
    return notices


class _Scout:
    """The actor that votes. If it is lost, another one takes its place."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._member = fleet.first_member()
        self._losses = 0

    def try_out(self, task: ShardTask) -> TriedOut | None:
        """Vote on a shard; None if the actor was lost, or if the tar is bad, which its own turn will report."""
        try:
            tried: TriedOut = self._fleet.answer_of(self._member, self._member.actor.try_out.remote(task, _IMAGES))
            return tried
        except RayError as error:
            cause = cause_of(error)
            if not isinstance(cause, ShardError):
                if self._gives_up(error):
                    raise cause from None
                self._fleet.end(self._member)  # the shard or the machine ended it; another may do better
                self._member = self._fleet.first_member()
            return None

    def _gives_up(self, error: RayError) -> bool:
        if not isinstance(error, LOST):
            return True
        if alive_among([self._fleet.machine_of(self._member)]):  # the end of a machine is not the model's fault
            self._losses += 1
        return self._losses >= self._fleet.plan.job.execution.max_attempts
