"""What can go wrong before Ray runs, with real servers and folders: each is refused with one line.

Not covered: the command as a whole (test_connection.py); clusters of several machines (test_nodes.py).
"""

import json
import os
import resource
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest
import ray
from ray._private.utils import validate_socket_filepath
from ray.core.generated.gcs_service_pb2 import InternalKVGetReply
from ray.core.generated.gcs_service_pb2_grpc import (
    InternalKVGcsServiceServicer,
    add_InternalKVGcsServiceServicer_to_server,
)

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.cluster import ray_start
from smoothcert.pipeline.cluster.ray_start import Cluster, check_cluster, find_cluster, temporary_folder
from tests.helpers.ports import closed_port

HERE = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"


@pytest.fixture
def short_folder():
    """A folder with a short path, as Ray's sockets need."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No address, folder or token of the user who runs the tests."""
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    if "RAY_AUTH_MODE" not in os.environ:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def refused(function, *arguments):
    """The line that a refusal prints."""
    with pytest.raises(RequestError) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def named(port):
    """A cluster that RAY_ADDRESS names."""
    return Cluster(f"127.0.0.1:{port}", "the environment variable RAY_ADDRESS", "correct RAY_ADDRESS")


@pytest.mark.parametrize(
    "address",
    ["head", "head:", ":6379", "head:ray", "head:0", "head:65536", "head:-1", "::1:6379", "head:6379/", " ", "head:²"],
)
def test_text_that_is_no_address_is_refused(address, monkeypatch):
    """The line names the variable, its value and the form of an address."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    line = refused(find_cluster)
    assert line.startswith(f"RAY_ADDRESS is {address!r}, which is no address")
    assert "HOST:PORT" in line


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "http://127.0.0.1:8265"])
def test_addresses_for_other_tools_are_refused(address, monkeypatch):
    """Ray's client cannot stream, and `ray job submit` takes the address of a dashboard."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert "`ray job submit`" in refused(find_cluster)


@pytest.mark.parametrize("address", ["head:6379", "127.0.0.1:6379", "[::1]:6379"])
def test_an_address_is_not_looked_up(address, monkeypatch):
    """The cluster is named as RAY_ADDRESS names it."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    found = find_cluster()
    assert found is not None
    assert str(found) == f"{address} (from the environment variable RAY_ADDRESS)"


def test_local_starts_ray_whatever_cluster_is_recorded(short_folder, monkeypatch):
    """No address starts Ray, too, if no cluster is recorded; an empty address counts as none."""
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    assert find_cluster() is None
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert find_cluster() is None
    note(short_folder, "10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert find_cluster() is None


def note(folder, address):
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(address)


def test_the_file_that_records_an_ended_cluster_is_named(short_folder, monkeypatch):
    """The address does not come from the environment, so the line names the file."""
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    note(short_folder, f"127.0.0.1:{closed_port()}")
    found = find_cluster()
    assert found is not None
    assert f"delete {short_folder}/ray/ray_current_cluster" in refused(check_cluster, found)


def test_a_file_that_records_no_address_is_named(short_folder, monkeypatch):
    """A full disk leaves such a file."""
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    note(short_folder, "")
    assert "holds ''; delete it" in refused(find_cluster)


def test_a_record_that_cannot_be_read_is_named(short_folder, monkeypatch):
    """It may belong to another user."""
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    (short_folder / "ray" / "ray_current_cluster").mkdir(parents=True)
    assert f"{short_folder}/ray/ray_current_cluster, in which" in refused(find_cluster)


def test_auto_needs_a_cluster(short_folder, monkeypatch):
    """`auto` never starts a cluster."""
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    monkeypatch.setenv("RAY_TMPDIR", str(short_folder))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert refused(find_cluster).startswith("RAY_ADDRESS is auto, but no Ray cluster runs on this machine")


def test_a_closed_port_is_refused():
    """The line has the address, where it came from, and what to do."""
    port = closed_port()
    assert refused(check_cluster, named(port)) == (
        f"no Ray cluster answers at 127.0.0.1:{port} (from the environment variable RAY_ADDRESS): Connection refused; "
        "correct RAY_ADDRESS"
    )


def test_an_unknown_host_is_refused():
    """Its name has no address."""
    line = refused(check_cluster, Cluster("nowhere.invalid:6379", "RAY_ADDRESS", "correct it"))
    assert line.startswith("no Ray cluster answers at nowhere.invalid:6379")


def test_a_silent_server_is_given_up(monkeypatch):
    """A suspended machine accepts connections and never answers."""
    monkeypatch.setattr(ray_start, "_ANSWER_TIMEOUT_S", 0.5)
    with socket.create_server(("", 0)) as silent:
        line = refused(check_cluster, named(silent.getsockname()[1]))
    assert "nothing was heard within 0.5 s" in line


def test_another_server_is_no_cluster():
    """A web server listens at the port."""
    with HTTPServer(("", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        line = refused(check_cluster, named(server.server_port))
        server.shutdown()
    assert "another program listens there" in line


class Head(InternalKVGcsServiceServicer):
    """The part of a cluster's head that answers with its versions."""

    def __init__(self, answer):
        self._answer = answer

    def InternalKVGet(self, request, context):  # noqa: N802 - gRPC's name
        if isinstance(self._answer, grpc.StatusCode):
            context.abort(self._answer, "as the test wants it")
        return InternalKVGetReply(value=json.dumps(self._answer).encode())


@contextmanager
def head(answer):
    """A head that gives this answer; its port."""
    server = grpc.server(ThreadPoolExecutor(1))
    add_InternalKVGcsServiceServicer_to_server(Head(answer), server)
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("versions", [("1.0.0", HERE), (ray.__version__, "3.8.1"), ("1.0.0", "3.8.1")])
def test_a_cluster_of_other_versions_is_refused(versions):
    """The line names the versions of both sides."""
    with head({"ray_version": versions[0], "python_version": versions[1]}) as port:
        line = refused(check_cluster, named(port))
    assert f"has Ray {versions[0]} and Python {versions[1]}, this environment Ray {ray.__version__} and Pyth" in line


def test_a_cluster_that_wants_a_token_says_so():
    """Without our check Ray asks for 25 s."""
    with head(grpc.StatusCode.UNAUTHENTICATED) as port:
        assert "asks for a token that this command does not have" in refused(check_cluster, named(port))


@pytest.mark.usefixtures("ray_here")
def test_a_driver_must_run_on_a_node(monkeypatch):
    """A cluster refuses a driver on a machine that is not one of its nodes."""
    own = Cluster(ray.get_runtime_context().gcs_address, "here", "")
    check_cluster(own)
    monkeypatch.setattr(ray_start, "_NODE_TIMEOUT_S", 1)
    monkeypatch.setattr("ray._private.services.find_node_ids", set)
    assert refused(check_cluster, own).startswith("this machine is no node of the Ray cluster at")


@pytest.mark.usefixtures("ray_here")
def test_a_user_must_have_access_to_the_sockets(monkeypatch):
    """Without access Ray ends the process at once."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    own = Cluster(ray.get_runtime_context().gcs_address, "here", "")
    assert refused(check_cluster, own).startswith("this user may not use the Ray cluster at")


@pytest.mark.parametrize("length", range(20, 121, 4))
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_sockets_fit_whatever_the_length_of_the_path(length, variable, short_folder, monkeypatch):
    """If the path is too long, a short folder is used, and a notice says so. Oracle: Ray's own check."""
    monkeypatch.setattr(ray_start, "_SHORT_FOLDER", short_folder / "ray")
    monkeypatch.setattr(ray_start, "_FREE_BYTES", 1)
    root = Path(f"{short_folder}/".ljust(length, "x"))
    root.mkdir(exist_ok=True)
    monkeypatch.setenv(variable, str(root))
    said = []
    folder = temporary_folder(said.append)
    session = f"session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    validate_socket_filepath(str(folder / session))
    if folder == root / "ray":
        assert not said
    else:
        with pytest.raises(OSError, match="AF_UNIX path length"):
            validate_socket_filepath(str(root / "ray" / session))
        assert len(said) == 1
        assert variable in said[0]


def test_a_folder_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    """It does not exist, is a file, or holds a file named `ray`. The line names the variable and the reason."""
    (tmp_path / "file").touch()
    (tmp_path / "ray").touch()
    for folder, reason in (("gone", "No such file"), ("file", "Not a directory"), ("", "Not a directory")):
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / folder))
        monkeypatch.setattr(ray_start, "_MAX_SOCKET_BYTES", 1000)
        line = refused(temporary_folder, print)
        assert f"{tmp_path / folder / 'ray'} (from RAY_TMPDIR): {reason}" in line
        assert "set RAY_TMPDIR to a folder" in line


def test_a_folder_without_room_is_named(short_folder, monkeypatch):
    """No file is left in it."""
    monkeypatch.setenv("TMPDIR", str(short_folder))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        line = refused(temporary_folder, print)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert line.startswith(f"Ray cannot keep its temporary files in {short_folder}/ray (from TMPDIR)")
    assert not list(short_folder.iterdir())
