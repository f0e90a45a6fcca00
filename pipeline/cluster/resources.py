"""What the Ray cluster has, and what an actor asks for.

Not covered: joining or starting it (connection.py); the actors (certify/fleet.py).
"""

import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Execution
from smoothcert.pipeline.console.looks import number_of

_MAX_AUTO_CPUS = 4  # more threads gain little in small matrix products
_ANSWER_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Share:
    """What one actor asks for, and how many actors the job asks for; None: as many as there is room for."""

    cpus: float
    gpus: float
    actors: int | None

    def room(self) -> int:
        """How many actors fit on the present machines, including those that run already."""
        return sum(self._room_on(machine) for machine in _machines())

    def _room_on(self, machine: dict[str, float]) -> int:
        by_cpus = int(machine.get("CPU", 0) // self.cpus)
        return min(by_cpus, int(machine.get("GPU", 0) // self.gpus)) if self.gpus else by_cpus

    def require_room(self, what: str) -> None:
        """Check that the actors fit, or that an autoscaler may bring machines: Ray would wait for ever.

        Args:
            what: the word for an actor in the keys of `execution`.
        Raises:
            RequestError: there is no room.
        """
        count, room = self.actors or 1, self.room()
        if room < count and not has_autoscaler():
            machines = _machines()
            most_cpus, most_gpus = _most(machines, "CPU"), _most(machines, "GPU")
            raise RequestError(
                f"execution asks for {number_of(count, what)} of {self.cpus:g} CPUs and {self.gpus:g} GPUs each, but "
                f"the cluster has room for {room}: its largest machine has {most_cpus:g} CPUs and {most_gpus:g} GPUs; "
                f"lower execution.{what}s, cpus_per_{what} or gpus_per_{what}"
            )


def share_of(execution: Execution) -> Share:
    """Decide what `auto` means on this cluster.

    Raises:
        RequestError: there is no room for what the job asks for, and no autoscaler that could bring machines.
    """
    machines = _machines()
    most_cpus, most_gpus = _most(machines, "CPU"), _most(machines, "GPU")
    gpus = execution.gpus_per_actor if execution.gpus_per_actor is not None else float(most_gpus > 0)
    part = most_cpus * gpus / most_gpus if most_gpus else min(most_cpus, _MAX_AUTO_CPUS)
    cpus = execution.cpus_per_actor or max(1, int(part))
    share = Share(cpus, gpus, execution.actors)
    share.require_room("actor")
    return share


def has_autoscaler() -> bool:
    """Whether asking for more can bring machines: Ray's launcher or KubeRay made this cluster."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists() or "RAY_CLUSTER_NAME" in os.environ


def alive_among(nodes: Collection[str | None]) -> set[str]:
    """The machines that Ray calls alive and that answer: Ray may need a minute to notice that one has ended."""
    return {node["NodeID"] for node in ray.nodes() if node["NodeID"] in nodes and node["Alive"] and _answers(node)}


def _answers(node: dict[str, Any]) -> bool:
    try:
        with socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=_ANSWER_TIMEOUT_S):
            return True
    except OSError:
        return False


def _most(machines: Sequence[dict[str, float]], resource: str) -> float:
    return max(machine.get(resource, 0) for machine in machines)


def _machines() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
