"""One actor votes on a few images before the fleet starts, and nothing is published.

Not covered: what the images show about the request (canary.py).
"""

from collections import Counter

from ray.exceptions import RayError

from smoothcert.manifests.errors import ShardError
from smoothcert.pipeline.certify.canary import Canary
from smoothcert.pipeline.certify.plan import Plan
from smoothcert.pipeline.cluster.ray_errors import cause_of, is_ours
from smoothcert.pipeline.cluster.resources import alive_among
from smoothcert.pipeline.fleet.fleet import LOST, Fleet, Member
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
        RequestError: the model cannot be loaded or gives NaN, no actor can start, or nearly all labels or sizes are
            wrong.
        RunError: nearly none of the images can be decoded, or no machine came.
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

    def __init__(self, fleet: Fleet[Plan]) -> None:
        self._fleet = fleet
        self._member: Member | None = fleet.first_member()
        self._losses = Counter[str]()

    def memory_bytes(self, gpus: float) -> int:
        """The memory of the actor, which asked for this many GPUs.

        Raises:
            SmoothcertError: actors are lost, or cannot work.
        """
        while True:
            member = self._ready_member()
            try:
                memory: int = self._fleet.answer_of(member, member.actor.memory_bytes.remote(gpus))
            except RayError as error:
                gives_up = not isinstance(error, LOST) or self._lost_too_often(member, "")  # for no run
                self._leave(member)
                if gives_up:
                    raise cause_of(error) from None
            else:
                return memory

    def try_out(self, task: ShardTask, run_id: str) -> TriedOut | None:
        """Vote on a shard; None if the actor was lost, or if the tar is bad, which its own turn will report."""
        member = self._ready_member()
        try:
            tried: TriedOut = self._fleet.answer_of(member, member.actor.try_out.remote(task, _IMAGES, run_id))
            return tried
        except RayError as error:
            cause = cause_of(error)
            if isinstance(cause, ShardError):
                return None
            lost = isinstance(error, LOST)
            gives_up = not lost or self._lost_too_often(member, run_id)
            if lost or not is_ours(error):  # another model must not vote in a process that this one broke
                self._leave(member)
            if gives_up:
                raise cause from None
            return None

    def _ready_member(self) -> Member:
        self._member = self._member or self._fleet.first_member()
        return self._member

    def _leave(self, member: Member) -> None:
        self._fleet.end(member)
        self._member = None

    def _lost_too_often(self, member: Member, run_id: str) -> bool:
        """Count the loss of an actor on behalf of a run."""
        if alive_among([self._fleet.machine_of(member)]):  # the end of a machine is not the model's fault
            self._losses[run_id] += 1
        return self._losses[run_id] >= self._fleet.execution.max_attempts
