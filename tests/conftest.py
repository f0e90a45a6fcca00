"""Servers and runs that several test modules need."""

import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from hypothesis import settings

from smoothcert.workers.storage import http_client
from smoothcert.workers.storage import store as storage
from tests.helpers.finished_runs import RUNS, Row, finish, with_votes
from tests.helpers.hub import Hub
from tests.helpers.jobs import CLASSES
from tests.helpers.web_server import WebServer, web_server

# Machines are shared: how long an example takes says nothing.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

RADOSGW = Path(__file__).parent / "helpers" / "radosgw.sh"


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server; gives the environment of its clients."""
    folder = tmp_path_factory.mktemp("radosgw")
    started = subprocess.run(
        [RADOSGW, "start", folder, str(_free_ports())], capture_output=True, text=True, check=False, timeout=600
    )
    try:
        if started.returncode:
            pytest.skip(f"no S3 server here: {started.stderr.strip()}")
        yield dict(line.split("=", 1) for line in started.stdout.splitlines())
    finally:
        subprocess.run([RADOSGW, "stop", folder], check=True, timeout=120)


@pytest.fixture
def s3(radosgw: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The real S3 server in this process's environment, as on a user's machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in radosgw.items():
        monkeypatch.setenv(name, value)
    storage._s3.cache_clear()  # clients keep the environment in which they were made
    return radosgw


@pytest.fixture
def bucket(s3: dict[str, str]) -> str:
    """The name of a new bucket on the real server."""
    name = f"test-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub of weights on this machine, empty at first."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WebServer]:
    """A web server on this machine without files. Attempts follow each other at once; nobody has a login."""
    monkeypatch.setattr(http_client, "_BACKOFF_S", 0)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    with web_server() as server:
        yield server


@pytest.fixture(scope="session", params=RUNS)
def any_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of each kind; not to be changed."""
    return finish(tmp_path_factory.mktemp(request.param), **RUNS[request.param])


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of columns; not to be changed."""
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def before_and_after(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs over the same tars, not to be changed. All votes are right in the first; in the second, images of even
    number lost some of them, and with them certificates, and a few lost the prediction."""

    def after(row: Row) -> list[int]:
        votes = len(row["votes"])
        lost = votes // 2 * (1 - row["index"] % 2) + votes // 3 * (row["index"] % 4 == 0)
        return [((row["label"] or 0) + 1) % CLASSES] * lost + [row["label"] or 0] * (votes - lost)

    folder = tmp_path_factory.mktemp("compared")
    base = with_votes(finished, folder / "base", lambda row: [row["label"] or 0] * len(row["votes"]))
    return base, with_votes(finished, folder / "new", after)


@pytest.fixture(scope="session")
def finished_partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of the first 9 images; not to be changed."""
    return finish(tmp_path_factory.mktemp("partial"), **RUNS["limit"])


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of one run, to be changed; its tars and weights are shared."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def _free_ports() -> int:
    """A port that is free, as is the one after it."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
