"""Nodes join, end and differ: a real Ray cluster of several nodes on this machine, and real drivers that join it.

A node is `ray start` in a session of its own, which is all that is ever killed; its actors inherit its environment, so
a fault can be put into one node alone. The head has no CPU for actors, every other node has one.

Not covered: machines with clocks, disks and networks of their own (scripts/lab).
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from smoothcert.workers.runs.published import parse_metadata
from tests.helpers import jobs
from tests.helpers.faults import (
    ALIKE,
    ATTEMPTS,
    CERTIFIER,
    DONE,
    Comparison,
    Driver,
    Rows,
    before_shards,
    compare,
    injection,
    output_of,
    record,
    rows_of,
    small_job_rows,
)

SHARDS, IMAGES = 160, 3
WHOLE = Comparison(SHARDS * IMAGES, SHARDS * IMAGES, 0, 0)
PAUSE = "time.sleep(1.5)"
DEADLINE_S = 5
ONE_SHARD_PER_ACTOR = {ATTEMPTS: "SHARDS_PER_ACTOR = 1"}  # if an actor is lost with two shards, neither is charged
AGAIN = r"^again: \d+\.tar: an actor died"
OTHER_WEIGHTS = """
import torch
_undisturbed = load_classifier
def load_classifier(*arguments, **options):
    network = _undisturbed(*arguments, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    return network
"""
OTHER_TORCH = """
_true_environment = environment_here
def environment_here(device):
    here = _true_environment(device)
    return here | {"versions": here["versions"] | {"torch": "1.0"}}
"""
# A driver that is slow to compare the second node.
BUSY = """
import time
_undisturbed = Alike.check
def _disturbed(self, actor):
    if actor.node == "second":
        time.sleep(5)
    _undisturbed(self, actor)
Alike.check = _disturbed
"""
_RAY = Path(sys.executable).parent / "ray"
_STARTS = 3  # Ray gives a node 30 s to start, which a busy machine may exceed
_OPTIONS = [
    "--block",
    "--num-gpus=0",
    "--object-store-memory=100000000",
    "--min-worker-port=0",  # any free port: nodes on one machine share its ports
    "--max-worker-port=0",
    "--dashboard-agent-listen-port=0",
    "--include-log-monitor=false",
]
_ITS_OWN_NAME = "import platform; platform.node = lambda: {name!r}"


class Node:
    """A machine of a cluster: `ray start` and what it starts.

    Args:
        folder: of the cluster.
        options: of `ray start`.
        environment: added to this process's.
    """

    def __init__(self, folder: Path, *options: str, environment: Mapping[str, str]) -> None:
        self.id = secrets.token_hex(28)
        self._log = folder / f"{self.id[:8]}.log"
        own = {
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": self.id,
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # what is to be drained is drained by name
            "PYTHONUNBUFFERED": "1",
        }
        self._gone = False
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [_RAY, "start", f"--temp-dir={folder}", *_OPTIONS, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | own | dict(environment),
            )

    def is_up(self) -> bool:
        """Whether it has joined, once that or its end is known."""
        while "will now block" not in (text := self._log.read_text()):
            if self._process.poll() is not None:
                print(text)
                return False
            time.sleep(0.1)
        return True

    def end(self) -> float:
        """SIGTERM, as a cloud ends a machine in good order; the moment."""
        moment = time.monotonic()
        self._process.terminate()
        self._process.wait(120)
        self.kill()
        return moment

    def kill(self) -> float:
        """SIGKILL of all its processes, as when the power goes; the moment."""
        moment = time.monotonic()
        while not self._gone and (ours := _processes_of_session(self._process.pid)):
            for pid in ours:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.poll()
        self._process.wait()
        self._gone = True  # its number may be another's session now
        return moment


class Cluster:
    """A head, on which no actor has room, and the nodes that join it.

    Args:
        folder: a short path, for Ray's sockets lie below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: list[Node] = []
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

    def start_head(self) -> None:
        """From here on `environment` leads to it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            client_port = free.getsockname()[1]
        self._start(
            "--head", "--port=0", f"--ray-client-server-port={client_port}", "--include-dashboard=false", cpus=0
        )
        self.environment["RAY_ADDRESS"] = (self._folder / "ray_current_cluster").read_text().strip()

    def join(self, name: str, folder: Path, inject: Mapping[str, str]) -> Node:
        """A node with one CPU; `name` is what its actors say it is called, `inject` the code by module they run."""
        inject = {CERTIFIER: ""} | dict(inject)
        inject[CERTIFIER] += "\n" + _ITS_OWN_NAME.format(name=name)
        address = f"--address={self.environment['RAY_ADDRESS']}"
        return self._start(address, cpus=1, environment=injection(folder, inject))

    def _start(self, *options: str, cpus: int, environment: Mapping[str, str] = {}) -> Node:
        for _ in range(_STARTS):
            node = Node(self._folder, f"--num-cpus={cpus}", *options, environment=self.environment | dict(environment))
            self._nodes.append(node)
            if node.is_up():
                return node
            node.kill()
        raise AssertionError(f"a node did not start in {_STARTS} attempts")

    def drain(self, node: Node, deadline_s: int) -> None:
        """Tell Ray that a node will go away, as a cloud does before it takes a machine back."""
        reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", f"--node-id={node.id}"]
        command = [str(_RAY), "drain-node", *reason, f"--deadline-remaining-seconds={deadline_s}"]
        subprocess.run(command, check=True, env=os.environ | self.environment, timeout=120)

    def shut_down(self) -> None:
        """End all that was started."""
        for node in reversed(self._nodes):
            node.kill()


def _processes_of_session(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, its = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state != "Z":
                found.append(int(folder.name))
    return found


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster's head; ended with all nodes that joined it."""
    folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.shut_down()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Rows of the small job."""
    return small_job_rows(tmp_path_factory.mktemp("undisturbed"), SHARDS, IMAGES)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The small job, with as many actors as there is room for; a shard is given up after one attempt that counts."""
    jobs.write_shards(tmp_path, SHARDS, IMAGES)
    return jobs.write_job(tmp_path, execution={"cpus_per_actor": 1, "max_attempts": 1})


def work(job: Path, name: str, statement: str = PAUSE) -> dict[str, str]:
    """What an actor of a node does before each shard: it notes which, and the statement, unless it shall hurry."""
    return before_shards(
        f"Path({str(job.parent)!r}, f'{name}-{{task.index}}').touch()",
        f"if not Path({str(job.parent / 'hurry')!r}).exists(): {statement}",
    )


def hurry(job: Path) -> None:
    """From now on a shard takes a moment."""
    (job.parent / "hurry").touch()


def wait_for_next_shard(driver: Driver, job: Path, name: str, count: int = 1) -> None:
    """Until a node has begun so many more shards; it is at the beginning of the last one."""
    begun = len(list(job.parent.glob(f"{name}-*"))) + count
    deadline = time.monotonic() + 300
    while len(list(job.parent.glob(f"{name}-*"))) < begun:
        assert time.monotonic() < deadline, driver.text
        assert driver.process.poll() is None, driver.text
        time.sleep(0.02)


def published(job: Path) -> list[dict[str, Any]]:
    """What the one driver's diary says of the shards that were published, in the order of their ends."""
    (diary,) = output_of(job).glob("*/drivers/*.jsonl")
    entries = [json.loads(line) for line in diary.read_text().splitlines()[:-1]]
    return [entry for entry in entries if entry["outcome"] == "published"]


def images_per_second(entries: list[dict[str, Any]]) -> float:
    """From the end of the first of these shards to that of the last."""
    seconds: float = entries[-1]["at_s"] - entries[0]["at_s"]
    return (len(entries) - 1) * IMAGES / seconds


def errors_of(driver: Driver) -> list[str]:
    return [line for _, line in driver.lines if line.startswith("error: ")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_joins_and_is_killed(job, cluster, start, undisturbed):
    """A second node doubles the images a second; when it is killed, its shards are done by the first one."""
    cluster.join("first", job.parent, work(job, "first"))
    driver = start(job, environment=cluster.environment, inject=ONE_SHARD_PER_ACTOR)
    driver.wait_for(DONE, count=10, timeout_s=300)
    alone = len(driver.when(DONE))
    node = cluster.join("second", job.parent, work(job, "second"))
    wait_for_next_shard(driver, job, "second", count=12)
    killed = node.kill()
    taken_up = driver.wait_for(AGAIN)
    hurry(job)
    assert driver.wait(400) == 0, driver.text
    comparison, entries = compare(rows_of(output_of(job)), undisturbed), published(job)
    of_second = [place for place, entry in enumerate(entries) if entry["node"] == "second"]
    both = images_per_second(entries[of_second[0] : of_second[-1] + 1])
    ratio = both / images_per_second(entries[:alone])
    record(f"a second node joins, then is removed ({ratio:.1f} times the images/s)", comparison, "0")
    record("a node is killed (SIGKILL; until its shards are taken up)", comparison, "0", taken_up - killed)
    assert comparison == WHOLE
    assert ratio >= 1.5
    assert taken_up > killed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_is_drained(job, cluster, start, undisturbed):
    """A node that is drained, and ended at the deadline, costs its shard no attempt: one would be the last here."""
    cluster.join("first", job.parent, work(job, "first"))
    node = cluster.join("second", job.parent, work(job, "second", "time.sleep(600)"))
    driver = start(job, environment=cluster.environment, inject=ONE_SHARD_PER_ACTOR)
    wait_for_next_shard(driver, job, "second")
    cluster.drain(node, deadline_s=DEADLINE_S)
    time.sleep(DEADLINE_S)
    ended = node.end()
    taken_up = driver.wait_for(AGAIN)
    hurry(job)
    assert driver.wait(400) == 0, driver.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    record("a node is drained and ended (until its shards are taken up)", comparison, "0", taken_up - ended)
    assert comparison == WHOLE
    assert taken_up > ended


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_votes_differently(job, cluster, start, undisturbed):
    """Nothing of it is published, however late the driver comes to compare it; without it the run completes."""
    cluster.join("first", job.parent, work(job, "first"))
    driver = start(job, environment=cluster.environment, inject={ALIKE: BUSY})
    driver.wait_for(DONE, timeout_s=300)
    node = cluster.join("second", job.parent, {"smoothcert.workers.networks.classifiers": OTHER_WEIGHTS})
    code = driver.wait(300)
    (error,) = errors_of(driver)
    assert code == 1, driver.text
    assert error.startswith("error: second and first do not vote alike (votes_version 1 and 1; the logits of one image")
    assert driver.lines[-1][1] == error
    part = compare(rows_of(output_of(job)), undisturbed)
    assert 0 < part.images_out < part.images_in
    assert part.duplicates == part.wrong_values == 0
    refused = driver.lines[-1][0]
    node.kill()
    hurry(job)
    again = start(job, environment=cluster.environment)
    assert again.wait(400) == 0, again.text
    comparison = compare(rows_of(output_of(job)), undisturbed)
    seconds = again.seconds_to_recover(refused)
    record("a node votes differently, then the same command without it", comparison, "1, 0", seconds)
    assert comparison == WHOLE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_has_other_versions(job, cluster, start, undisturbed):
    """With --strict-versions it is refused before it publishes; without, its rows are as good as any and it is said."""
    cluster.join("first", job.parent, work(job, "first"))
    driver = start(job, "--strict-versions", environment=cluster.environment, inject={ALIKE: BUSY})
    driver.wait_for(DONE, timeout_s=300)
    other = work(job, "second")
    cluster.join("second", job.parent, {CERTIFIER: other[CERTIFIER] + OTHER_TORCH})
    assert driver.wait(300) == 2, driver.text
    (error,) = errors_of(driver)
    assert error.startswith("error: --strict-versions: ")
    assert '"torch": "1.0"' in error
    assert torch_versions(job) == {torch.__version__}
    assert compare(rows_of(output_of(job)), undisturbed).wrong_values == 0
    again = start(job, environment=cluster.environment)
    wait_for_next_shard(again, job, "second", count=2)
    hurry(job)
    assert again.wait(400) == 0, again.text
    assert "notice: mixed versions or devices" in again.text
    assert torch_versions(job) == {torch.__version__, "1.0"}
    assert compare(rows_of(output_of(job)), undisturbed) == WHOLE


def torch_versions(job: Path) -> set[str]:
    """With which the published files were made."""
    files = output_of(job).glob("*/votes/*")
    return {str((parse_metadata(file.read_bytes(), str(file)).versions or {})["torch"]) for file in files}
