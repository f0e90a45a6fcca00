"""The Ray cluster: join it or start it, see what it has, decide what an actor asks for.

Not covered: the actors (fleet.py).
"""

import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from manifests.errors import RequestError
from manifests.job import Execution
from pipeline import ray_start
from pipeline.ray_errors import describe

_MAX_CPUS_AUTO = 4  # more threads for one small matrix product gain little
_ANSWERS_S = 2.0


@dataclass(frozen=True)
class Share:
    """What one actor asks for, and how many there shall be; None: as many as there is room for."""

    cpus: float
    gpus: float
    actors: int | None

    def room(self) -> int:
        """How many actors fit on the machines of this moment, those that run counted."""
        return sum(self._room_on(machine) for machine in _machines())

    def _room_on(self, machine: dict[str, float]) -> int:
        by_cpus = int(machine.get("CPU", 0) // self.cpus)
        return min(by_cpus, int(machine.get("GPU", 0) // self.gpus)) if self.gpus else by_cpus


def connect(say: Callable[[str], None] = print) -> None:
    """Join the cluster this machine belongs to, or start Ray here.

    Args:
        say: hears of a folder that is not the usual one.
    Raises:
        RequestError: that is not possible, for a reason that the text gives.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do by default; else it warns
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an audit reports to nobody
    ray_start.quiet()
    found = ray_start.find_cluster()
    here = {}
    if found is None:
        here = {"address": "local", "_temp_dir": str(ray_start.temporary_folder(say))}
        # Without one Ray writes ~/.ray/auth_token, and each later `ray start --head` asks its users for that.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.pop("RAY_REDIS_ADDRESS", None)  # where a cluster's head keeps its state, not a Ray for one command
    else:
        ray_start.check_cluster(found)
    try:
        ray.init(
            job_config=_DriversCode(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            configure_logging=True,
            **here,
        )
    except Exception as error:  # Ray raises what it likes, even Exception itself
        ray.shutdown()
        doing = f"cannot join the Ray cluster at {found}" if found else "Ray cannot start here"
        raise RequestError(f"{doing}: {describe(error)}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own handler would drop what is under way


class _DriversCode(JobConfig):  # type: ignore[misc]
    """Actors import the code that the driver runs; Ray would first look into the current folder, whatever it holds."""

    def _serialize(self) -> bytes:
        house = str(Path(__file__).resolve().parents[1])
        of_driver = [path for path in self._py_driver_sys_path if path in sys.path]
        self._py_driver_sys_path: list[str] = [*of_driver, house]  # the last is the first to be searched
        return super()._serialize()


def share_of(execution: Execution) -> Share:
    """Decide what `auto` means on this cluster.

    Raises:
        RequestError: there is no room for what the job asks, and no autoscaler that could make some.
    """
    machines = _machines()
    most_cpus = max(machine.get("CPU", 0) for machine in machines)
    most_gpus = max(machine.get("GPU", 0) for machine in machines)
    gpus = execution.gpus_per_actor if execution.gpus_per_actor is not None else float(most_gpus > 0)
    part = most_cpus * gpus / most_gpus if most_gpus else min(most_cpus, _MAX_CPUS_AUTO)
    cpus = execution.cpus_per_actor or max(1, int(part))
    share = Share(cpus, gpus, execution.actors)
    room = share.room()
    if room < (execution.actors or 1) and not has_autoscaler():
        raise RequestError(
            f"execution: {execution.actors or 1} actor(s) of {cpus:g} CPUs and {gpus:g} GPUs asked for, the cluster "
            f"has room for {room}: its largest machine has {most_cpus:g} CPUs and {most_gpus:g} GPUs; "
            "lower execution.actors, cpus_per_actor or gpus_per_actor"
        )
    return share


def has_autoscaler() -> bool:
    """Whether machines may come when they are asked for: Ray's launcher, or KubeRay, made this cluster."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists() or "RAY_CLUSTER_NAME" in os.environ


def alive_among(nodes: Collection[str | None]) -> set[str]:
    """Those of the machines that Ray believes to be alive and that answer: Ray may need a minute to notice an end."""
    return {node["NodeID"] for node in ray.nodes() if node["NodeID"] in nodes and node["Alive"] and _answers(node)}


def _answers(node: dict[str, Any]) -> bool:
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=_ANSWERS_S):
            return True
    except OSError:
        return False


def _machines() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
