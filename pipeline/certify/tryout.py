"""One actor votes on a few images before the fleet starts, and nothing is published.

Not covered: what the images show about the request (canary.py).
"""

from collections import Counter

from ray.exceptions import RayError

from smoothcert.manifests.errors import ShardError
from smoothcert.pipeline.certify.canary import Canary
from smoothcert.pipeline.certify.fleet import LOST, Fleet
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.pipeline.cluster.ray_errors import cause_of
from smoothcert.pipeline.cluster.resources import alive_among
from smoothcert.workers.runs.shard_task import ShardTask, TriedOut

_IMAGES = 32  # of each shard


def try_out(scout: "Scout", plan: Plan) -> tuple[str, ...]:
    """Vote on the first images of the smallest shards, for one run.

    Args:
        scout: the actor that votes.
        plan: of the run.
    Returns:
        What the user should know about the job, a line each.
    Raises:
        RequestError: the model cannot be loaded, no actor can start, or nearly all labels are wrong.
        RunError: nearly none of the images can be voted on, or no machine came.
    """
    canary, notices = Canary(plan.job), tuple[str, ...]()
    unpublished = {task.index for task in plan.todo}
    for task in sorted(plan.tasks, key=lambda task: (task.index not in unpublished, task.shard.size)):
        # The last shards of a run may be odd ones, so a fault must show in published shards too.
        if canary.is_sure or (task.index not in unpublished and canary.fault() is None):
            break
        if tried := scout.try_out(task, plan.run.run_id):
            canary.add(task, tried)
            notices = tried.notices
    if fault := canary.fault():
        raise fault
    return notices


class Scout:
    """The first actor of a fleet. If it is lost, another one takes its place.

    Args:
        fleet: the actor later certifies shards in it.
    Raises:
        RequestError: no actor can start.
        RunError: no machine came.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._member = fleet.first_member()
        self._losses = Counter[str]()

    def memory_bytes(self, gpus: float) -> int:
        """The memory of the actor, which asked for this many GPUs."""
        memory: int = self._fleet.answer_of(self._member, self._member.actor.memory_bytes.remote(gpus))
        return memory

    def try_out(self, task: ShardTask, run_id: str) -> TriedOut | None:
        """Vote on a shard; None if the actor was lost, or if the tar is bad, which its own turn will report."""
        try:
            answer = self._member.actor.try_out.remote(task, _IMAGES, run_id)
            tried: TriedOut = self._fleet.answer_of(self._member, answer)
            return tried
        except RayError as error:
            cause = cause_of(error)
            if not isinstance(cause, ShardError):
                if not isinstance(error, LOST):
                    raise cause from None
                gives_up = self._gives_up(run_id)
                self._fleet.end(self._member)  # the shard or the machine ended it; another may do better
                self._member = self._fleet.first_member()
                if gives_up:
                    raise cause from None
            return None

    def _gives_up(self, run_id: str) -> bool:
        """Whether the actor was lost too often on behalf of a run."""
        if alive_among([self._fleet.machine_of(self._member)]):  # the end of a machine is not the model's fault
            self._losses[run_id] += 1
        return self._losses[run_id] >= self._fleet.execution.max_attempts
