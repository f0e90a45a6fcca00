"""Ray actors that certify shards: started, tried out, fed, replaced when they die, retired.

Each actor holds a loaded model. A shard's work is a stream: a number of images after every batch, the
report at the end. The driver waits on all streams at once.

    an error of the shard itself   the shard fails at once, the actor goes on
    any other error                an attempt is used up, the shard goes back to the queue
    the actor dies                 the same, and another actor takes its place

Not covered: which shards there are (plan.py), whether all actors vote alike (alike.py), what the user sees
(certify_all.py).
"""

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from manifests.errors import RequestError, RunError, ShardError, SmoothcertError
from manifests.job import Execution
from pipeline.plan import Plan
from workers.shard_task import Introduction, ShardReport, ShardTask

if TYPE_CHECKING:
    from workers.certifier import Certifier

CANARY_IMAGES = 32
_CANARY_ENOUGH = 8  # rows from which on "all failed" says something of the model
_MAX_CPUS_AUTO = 4  # more threads for one small matrix product gain little


@dataclass(frozen=True)
class Beat:
    """An actor has done so many images of its shard."""

    task: ShardTask
    images: int


@dataclass(frozen=True)
class Failure:
    """A shard that is given up; `reason` is one line."""

    task: ShardTask
    reason: str


@dataclass(frozen=True)
class Resources:
    """What one actor asks for, and how many there are."""

    actors: int
    cpus: float
    gpus: float


class Worker:
    """A Certifier in a process of its own."""

    def __init__(self, plan: Plan, threads: int) -> None:
        self._plan, self._threads = plan, threads
        self._introduced = False
        self._loaded: Certifier | None = None  # by the first task: Ray keeps a task's exception, not a constructor's

    def _certifier(self) -> "Certifier":
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> "Certifier":
        from workers.certifier import Certifier

        return Certifier(
            self._plan.job,
            run_id=self._plan.run.run_id,
            run_url=self._plan.run.url,
            checkpoint_sha256=self._plan.checkpoint_sha256,
            checkpoint_key=self._plan.checkpoint_key,
            threads=self._threads,
        )

    def try_out(self, task: ShardTask) -> Counter[str]:
        return self._certifier().try_out(task, CANARY_IMAGES)

    def certify(self, task: ShardTask) -> Iterator[Introduction | int | ShardReport]:
        certifier = self._certifier()
        if not self._introduced:
            yield certifier.introduce()
            self._introduced = True
        yield from certifier.certify(task)


def connect() -> None:
    """Join the cluster this machine belongs to, or start Ray here."""
    if ray.is_initialized():
        return
    # Actors of a Ray started here import the same code as the driver, from wherever it was run.
    house = str(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [house, os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by default; else it warns
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an audit reports to nobody
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", configure_logging=True)


def allot(execution: Execution, shards: int) -> Resources:
    """Decide what `auto` means on this cluster.

    Raises:
        RequestError: no machine has what one actor asks for.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_cpus = max(machine.get("CPU", 0) for machine in machines)
    most_gpus = max(machine.get("GPU", 0) for machine in machines)
    gpus = execution.gpus_per_actor if execution.gpus_per_actor is not None else float(most_gpus > 0)
    share = most_cpus * gpus / most_gpus if most_gpus else min(most_cpus, _MAX_CPUS_AUTO)
    cpus = execution.cpus_per_actor or max(1, int(share))
    fits = sum(_places(machine, cpus, gpus) for machine in machines)
    actors = execution.actors or min(shards, fits)
    if fits < max(1, execution.actors or 1):
        raise RequestError(
            f"execution: {max(1, actors)} actor(s) of {cpus:g} CPUs and {gpus:g} GPUs asked for, the cluster has "
            f"room for {fits}: its largest machine has {most_cpus:g} CPUs and {most_gpus:g} GPUs; "
            "lower execution.actors, cpus_per_actor or gpus_per_actor"
        )
    return Resources(min(actors, shards), cpus, gpus)


def _places(machine: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpus = int(machine.get("CPU", 0) // cpus)
    return min(by_cpus, int(machine.get("GPU", 0) // gpus)) if gpus else by_cpus


class Fleet:
    """The actors of one run.

    Args:
        plan: of the run, whose run.json is written.
        resources: from `allot`.
    """

    def __init__(self, plan: Plan, resources: Resources) -> None:
        self._plan, self._resources = plan, resources
        self._idle: list[Any] = [self._start()]

    def try_out(self, tasks: Sequence[ShardTask]) -> None:
        """Vote on a few images before the fleet starts, and publish nothing.

        Raises:
            RequestError: the model cannot be loaded.
            RunError: not one of the images can be voted on.
        """
        for task in sorted(tasks, key=lambda task: task.shard.size):
            try:
                statuses = ray.get(self._idle[0].try_out.remote(task))
            except RayError as error:
                cause = _cause(error)
                if isinstance(cause, ShardError):
                    continue  # it will be named when its turn comes
                raise cause from None
            voted = statuses["ok"] + statuses["label_error"]
            if statuses.total() >= _CANARY_ENOUGH and not voted:
                worst, count = statuses.most_common(1)[0]
                raise RunError(
                    f"none of the first {statuses.total()} images of {task.shard.name} can be voted on "
                    f"({count} x {worst}); check the model, its weights and the preprocessing"
                )
            return

    def certify(self, tasks: Sequence[ShardTask]) -> Iterator[Introduction | Beat | ShardReport | Failure]:
        """Do the shards in the order given, as actors come free; each ends in a report or a failure.

        An actor introduces itself before its first shard.
        """
        queue = deque(tasks)
        attempts: Counter[int] = Counter()
        self._idle += [self._start() for _ in range(self._resources.actors - len(self._idle))]
        running: dict[Any, tuple[Any, ShardTask]] = {}
        while queue or running:
            while queue and self._idle:
                actor, task = self._idle.pop(), queue.popleft()
                running[actor.certify.options(num_returns="streaming").remote(task)] = (actor, task)
            for stream in ray.wait(list(running), timeout=1.0, fetch_local=False)[0]:
                actor, task = running[stream]
                try:
                    item = ray.get(next(stream))
                    yield Beat(task, item) if isinstance(item, int) else item
                    continue
                except StopIteration:
                    self._idle.append(actor)
                except RayError as error:
                    cause = _cause(error)
                    if isinstance(cause, RequestError):
                        raise cause from None
                    self._idle.append(self._start() if isinstance(error, RayActorError) else actor)
                    attempts[task.index] += 1
                    if isinstance(cause, ShardError):
                        yield Failure(task, str(cause))
                    elif attempts[task.index] < self._plan.job.execution.max_attempts:
                        queue.append(task)
                    else:
                        tries = attempts[task.index]
                        yield Failure(
                            task, f"shard {task.shard.name}: given up after {tries} attempts, the last: {cause}"
                        )
                del running[stream]

    def _start(self) -> Any:
        cpus, gpus = self._resources.cpus, self._resources.gpus
        return ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus).remote(self._plan, max(1, int(cpus)))


def _cause(error: RayError) -> SmoothcertError:
    """Our own error behind one of Ray's, or one line of what happened."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, SmoothcertError):
        return cause
    if isinstance(error, RayActorError):
        return RunError(f"an actor died: {' '.join(str(error).split())[:300]}")
    return RunError(f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}")
