"""A real cluster: three machines over ssh, S3, one machine killed, another one silent; not an image lost.

    sudo .venv/bin/python scripts/lab/run.py [FOLDER]     in the root of the repository, about five minutes

Makes three machines (machines.sh), an S3 server (Ceph's radosgw) and a suite of two small jobs whose tars, weights and
output lie in S3. `ray up` and `ray submit` run it twice with the project's own entry point: the first time a worker
machine is killed, the second time its network is cut, so that nobody hears of its end. The runs of both entries are
compared, value for value, with undisturbed runs in a folder of this machine. expected.txt holds the output of one try.

Needs root, Debian's packages (installed if missing) and the project's .venv. Ends what it started.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOUSE = HERE.parents[1]
sys.path.insert(0, str(HOUSE))

import boto3

from smoothcert.manifests.job import Storage
from smoothcert.workers.runs.layout import VOTES
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.storage.store import AnyStore
from tests.helpers import jobs

SHARDS, IMAGES, S3_PORT = 60, 400, 7600
LAB_HOST = "10.77.0.1"  # this machine, as the lab sees it
COLUMNS = [
    "key",
    "shard",
    "index",
    "sha256",
    "status",
    "label",
    "prediction",
    "max_certified_patch",
    "votes",
    "margins",
]
ENTRIES = {"columns": {}, "rows": {"ablation": {"kind": "row", "size": 5, "stride": 2}}}
Rows = dict[str, list[dict]]
"""The rows of the run of each entry, by run id."""
RAY = str(Path(sys.executable).parent / "ray")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="lab-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with s3_server(folder / "s3"), machines(folder / "lab"):
        write_suite(folder)
        undisturbed = certify_here(folder)
        fill_cluster_yaml(folder)
        ray(folder, "up", "-y", "--no-config-cache")
        say("ray up: a head and two workers", workers_joined(folder))
        try:
            lose_a_machine(folder, undisturbed, machine=2, how="kill")
            lose_a_machine(folder, undisturbed, machine=3, how="vanish")
        finally:
            ray(folder, "down", "-y")
            say("ray down")


class Submitted:
    """A suite that `ray submit` started: the entry point without an argument takes ~/job.yaml.

    Args:
        folder: of the lab.
        name: of this try; it gets an output of its own.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self._store, self._output = AnyStore(Storage()), f"s3://lab/{name}"
        settings = ["--set", f"output={self._output}"]
        command = [RAY, "submit", folder / "cluster.yaml", "pipeline/certify_all.py", "--", *settings]
        self._driver = subprocess.Popen(command, cwd=HOUSE, stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def published(self) -> int:
        """Files that are there, of both runs."""
        return sum(len(self._store.files(f"{run}/{VOTES}")) for run in self._store.folders(self._output))

    def wait_for(self, happened: Callable[[], bool]) -> float:
        """Wait until something has happened, and return the time."""
        deadline = time.monotonic() + 600
        while not happened():
            if time.monotonic() > deadline or (self._driver.poll() is not None and not happened()):
                raise SystemExit(f"{self.name}: waited in vain; see {self.log}")
            time.sleep(0.2)
        return time.monotonic()

    def says(self, text: str) -> bool:
        """Whether the driver has printed it; colours may follow a word."""
        return text in self.log.read_text()

    def compare(self, undisturbed: Rows) -> None:
        """Wait for the end, and compare with the undisturbed runs, value for value."""
        code = self._driver.wait(timeout=1800)
        found = {run.rpartition("/")[2]: values_of(run) for run in self._store.folders(self._output)}
        for run_id, expected in undisturbed.items():
            rows = found.get(run_id, [])
            keys = [(row["shard"], row["key"]) for row in rows]
            differ = sum(one != other for one, other in zip(rows, expected, strict=False))
            say(
                f"{self.name}: exit code {code}",
                f"run {run_id}: {len(expected)} images in, {len(rows)} out, {len(keys) - len(set(keys))} twice, "
                f"{differ} differ from the undisturbed run",
            )
        if code or found != undisturbed:
            raise SystemExit("not equal")


def lose_a_machine(folder: Path, undisturbed: Rows, *, machine: int, how: str) -> None:
    """A machine is lost after some shards."""
    run = Submitted(folder, how)
    run.wait_for(lambda: run.published() >= len(ENTRIES) * SHARDS // 6)
    done = run.published()
    lab(folder, how, str(machine))
    lost = time.monotonic()
    again = run.wait_for(lambda: run.says("again:"))
    say(
        f"{how}: machine {machine} lost after {done} of {len(ENTRIES) * SHARDS} files",
        f"its shard is taken up after {again - lost:.0f} s",
    )
    run.compare(undisturbed)


def write_suite(folder: Path) -> None:
    """The suite's files in S3, and its file, which is mounted as job.yaml."""
    jobs.write_shards(folder, shards=SHARDS, images=IMAGES)
    jobs.write_weights(folder / "weights.pt")
    job = jobs.write_job(
        folder,
        images={"shards": f"s3://lab/tars/{{00..{SHARDS - 1}}}.tar"},
        output="s3://lab/runs",
        execution={"cpus_per_actor": 1},
        entries=ENTRIES,
    )
    job.write_text(job.read_text().replace("checkpoint: weights.pt", "checkpoint: s3://lab/weights.pt"))
    client = boto3.client("s3")
    client.create_bucket(Bucket="lab")
    client.upload_file(str(folder / "weights.pt"), "lab", "weights.pt")
    for tar in sorted((folder / "tars").iterdir()):
        client.upload_file(str(tar), "lab", f"tars/{tar.name}")


def certify_here(folder: Path) -> Rows:
    """The rows of undisturbed runs in a folder of this machine."""
    settings = [f"images.shards={folder}/tars", f"model.checkpoint={folder}/weights.pt", f"output={folder}/runs"]
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, HOUSE / "pipeline" / "certify_all.py", folder / "job.yaml", *options, "--json"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    entries = json.loads(answer.stdout)["entries"].values()
    rows = {entry["run_id"]: values_of(entry["path"]) for entry in entries}
    say(f"undisturbed, on this machine: {len(rows)} runs of {SHARDS} shards")
    return rows


def values_of(url: str) -> list[dict]:
    """All rows of a run in the order of its shards."""
    return [row for file in read_published(open_run(url), COLUMNS) for row in file.rows.to_pylist()]


def fill_cluster_yaml(folder: Path) -> None:
    environment = folder / "s3.env"
    environment.write_text(
        "".join(f"{name}={value}\n" for name, value in os.environ.items() if name.startswith("AWS_"))
    )
    text = (folder / "lab" / "cluster.yaml").read_text()
    (folder / "cluster.yaml").write_text(
        text.replace("@JOB@", str(folder / "job.yaml")).replace("@ENVIRONMENT@", str(environment))
    )


def ray(folder: Path, verb: str, *options: str) -> None:
    """Ray's launcher, in the root of the repository."""
    with (folder / f"ray-{verb}.log").open("w") as log:
        command = [RAY, verb, *options, folder / "cluster.yaml"]
        subprocess.run(command, cwd=HOUSE, check=True, stdout=log, stderr=subprocess.STDOUT)


def workers_joined(folder: Path) -> str:
    """Wait for both workers, and say how long it took."""
    start = time.monotonic()
    while "3.0 CPU" not in (status := shell(folder, 1, "ray status 2>/dev/null || true")):
        if time.monotonic() - start > 180:
            raise SystemExit(f"the workers do not join:\n{status}")
        time.sleep(2)
    return f"all joined after {time.monotonic() - start:.0f} s"


def shell(folder: Path, machine: int, command: str) -> str:
    """What a command prints on a machine of the lab."""
    key = folder / "lab" / "id_ed25519"
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    login = ["ssh", "-i", key, *options, f"root@10.77.0.1{machine}", f"bash -lc '. ~/.bashrc; {command}'"]
    return subprocess.run(login, capture_output=True, text=True, check=True, timeout=60).stdout


@contextmanager
def machines(folder: Path) -> Iterator[None]:
    environment = os.environ | {"LAB_PYTHON": sys.executable}
    subprocess.run([HERE / "machines.sh", "up", folder], check=True, env=environment, stdout=subprocess.DEVNULL)
    say("three machines are up")
    try:
        yield
    finally:
        subprocess.run([HERE / "machines.sh", "down", folder], check=True)


def lab(folder: Path, verb: str, *arguments: str) -> None:
    subprocess.run([HERE / "machines.sh", verb, folder / "lab", *arguments], check=True)


@contextmanager
def s3_server(folder: Path) -> Iterator[None]:
    """radosgw on loopback, and a forwarder from the lab's bridge to it."""
    script = HOUSE / "tests" / "helpers" / "radosgw.sh"
    started = subprocess.run([script, "start", folder, str(S3_PORT)], check=True, capture_output=True, text=True)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(line.split("=", 1) for line in started.stdout.splitlines())
    os.environ["AWS_ENDPOINT_URL"] = f"http://{LAB_HOST}:{S3_PORT}"
    threading.Thread(target=forward, daemon=True).start()
    say("an S3 server is up")
    try:
        yield
    finally:
        subprocess.run([script, "stop", folder], check=True)
        shutil.rmtree(folder)


def forward() -> None:
    """Pass connections to the lab's address on to the server, as soon as the address exists."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                listener.bind((LAB_HOST, S3_PORT))
                break
            except OSError:
                time.sleep(0.2)
        listener.listen(64)
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", S3_PORT))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        sink.close()


def say(*lines: str) -> None:
    print(": ".join(lines), flush=True)


if __name__ == "__main__":
    main()
