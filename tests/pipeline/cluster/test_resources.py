"""What `auto` means on a cluster, how many actors have room, and which machines live."""

import socket
from collections.abc import Callable

import pytest
import ray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Execution
from smoothcert.pipeline.cluster import resources
from smoothcert.pipeline.cluster.resources import Share, alive_among, has_autoscaler, share_of

Machines = Callable[..., None]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Sets the machines of the cluster, each by its CPUs and GPUs; there is no autoscaler."""
    monkeypatch.setattr(resources, "has_autoscaler", lambda: False)

    def set_machines(*cpus_and_gpus: tuple[float, float]) -> None:
        nodes = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in cpus_and_gpus]
        dead = {"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}}
        monkeypatch.setattr(ray, "nodes", lambda: [*nodes, dead])

    return set_machines


@pytest.mark.parametrize(
    ("cluster", "execution", "cpus", "gpus"),
    [
        ([(16, 0)], {}, 4, 0),  # more threads gain little
        ([(2, 0)], {}, 2, 0),
        ([(0.5, 0), (1, 0)], {}, 1, 0),
        ([(16, 8)], {}, 2, 1),  # each GPU has its part of the CPUs
        ([(4, 0), (16, 2)], {}, 8, 1),
        ([(16, 8)], {"gpus_per_actor": 0.5}, 1, 0.5),
        ([(16, 8)], {"gpus_per_actor": 0}, 1, 0),
        ([(16, 8)], {"cpus_per_actor": 3}, 3, 1),
    ],
)
def test_auto_is_a_fair_part_of_the_largest_machine(
    cluster: list[tuple[float, float]], execution: dict[str, float], cpus: float, gpus: float, machines: Machines
) -> None:
    """A GPU where there are any; what the job names is taken as it is."""
    machines(*cluster)
    assert share_of(Execution.model_validate(execution)) == Share(cpus, gpus, None)


@pytest.mark.parametrize(
    ("share", "room"),
    [
        (Share(cpus=4, gpus=0, actors=None), 1 + 4),
        (Share(cpus=1, gpus=1, actors=None), 0 + 2),
        (Share(cpus=1, gpus=0.5, actors=None), 0 + 4),
        (Share(cpus=12, gpus=0.5, actors=None), 0 + 1),  # CPUs run out first
        (Share(cpus=17, gpus=0, actors=None), 0),
    ],
)
def test_an_actor_lies_on_one_machine(share: Share, room: int, machines: Machines) -> None:
    """Rests of several machines do not add up; dead machines have no room."""
    machines((6, 0), (16, 2))
    assert share.room() == room


@pytest.mark.parametrize(
    ("execution", "says"),
    [
        (
            {"actors": 3, "cpus_per_actor": 4},
            "3 actors of 4 CPUs and 0 GPUs each, but the cluster has room for 2",
        ),
        ({"gpus_per_actor": 1}, "1 actor of 8 CPUs and 1 GPUs each, but the cluster has room for 0"),
    ],
)
def test_what_has_no_room_is_refused(
    execution: dict[str, float], says: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the largest machine has; an autoscaler may bring a larger one."""
    machines((8, 0))
    with pytest.raises(RequestError) as refused:
        share_of(Execution.model_validate({"cpus_per_actor": 8, **execution}))
    assert says in str(refused.value)
    assert "its largest machine has 8 CPUs and 0 GPUs" in str(refused.value)
    monkeypatch.setattr(resources, "has_autoscaler", lambda: True)
    assert share_of(Execution.model_validate({"cpus_per_actor": 8, **execution})).actors == execution.get("actors")


def test_an_autoscaler_shows_by_what_made_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ray's launcher leaves a file in the home folder of the head; KubeRay sets a variable."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("RAY_CLUSTER_NAME", raising=False)
    assert not has_autoscaler()
    monkeypatch.setenv("RAY_CLUSTER_NAME", "kube")
    assert has_autoscaler()
    monkeypatch.delenv("RAY_CLUSTER_NAME")
    (home / "ray_bootstrap_config.yaml").touch()
    assert has_autoscaler()


def test_a_machine_lives_if_ray_knows_it_and_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray may need a minute to notice an end, but the port of its process closes at once."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as closing:
        ports = {"lives": listening.getsockname()[1], "ended": closing.getsockname()[1]}
        ports |= {"other": ports["lives"], "dead": ports["lives"]}
        nodes = [
            {"NodeID": name, "Alive": name != "dead", "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}
            for name, port in ports.items()
        ]
        monkeypatch.setattr(ray, "nodes", lambda: nodes)
        closing.close()
        assert alive_among(["lives", "ended", "dead", "unknown", None]) == {"lives"}
        assert alive_among([]) == set()
