"""Checks before Ray starts or is joined. Without them Ray tries for minutes and prints lines of its C++ code.

    RAY_ADDRESS              which Ray
    unset                    the cluster that `ray start` recorded on this machine; without one, Ray starts here
    local                    Ray starts here
    auto                     a cluster that runs on this machine
    HOST:PORT                that cluster; this machine must be one of its nodes
    ray://..., http://...    refused: the driver listens to actors while they work, so it must run in the cluster

A Ray that starts here keeps its sockets and logs in the folder `ray` of RAY_TMPDIR, TMPDIR or /tmp.
Not covered: starting and joining (connection.py); what the cluster has (resources.py).
"""

import json
import logging
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import ray
from ray._common.network_utils import parse_address
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._common.utils import get_ray_address_file
from ray._private import services
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.gcs_utils import create_gcs_channel
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray._private.utils import check_version_info
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import InternalKVGetRequest
from ray.core.generated.gcs_service_pb2_grpc import InternalKVGcsServiceStub
from ray.exceptions import RayError

from smoothcert.manifests.errors import RequestError

_ANSWER_TIMEOUT_S = 10.0
_NODE_TIMEOUT_S = 10
_MAX_SOCKET_BYTES = 107  # the longest path of a Unix socket
_LONGEST_SOCKET = "/session_2026-01-01_00-00-00_000000_{pid}/sockets/plasma_store"
_FREE_BYTES = 16 * 2**20  # for logs and sockets; a small run needs 2 MiB
_SHORT_FOLDER = Path("/tmp/ray")  # noqa: S108 - Ray's own default


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster to join.

    Attributes:
        address: HOST:PORT.
        source: a phrase that says where its address comes from.
        remedy: what to do if it cannot be joined.
    """

    address: str
    source: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.address} (from {self.source})"


def find_cluster() -> Cluster | None:
    """The cluster to join, or None if Ray is to start here.

    Raises:
        RequestError: RAY_ADDRESS is no address, or is auto and no cluster runs here.
    """
    named = os.environ.get("RAY_ADDRESS") or None
    if named == "local":
        return None
    if named and named != "auto":
        _check_address(named)
        remedy = "correct RAY_ADDRESS, or unset it to start Ray on this machine"
        return Cluster(named, "the environment variable RAY_ADDRESS", remedy)
    return _recorded_cluster(named)


def _check_address(address: str) -> None:
    if "://" in address:
        raise RequestError(
            f"RAY_ADDRESS is {address}, but the driver cannot run outside the cluster; submit it with `ray job submit` "
            "(docs/operations.md), name a cluster of this machine as HOST:PORT, or unset RAY_ADDRESS"
        )
    if not _is_address(address):
        raise RequestError(
            f"RAY_ADDRESS is {address!r}, which is no address of a Ray cluster; write HOST:PORT, such as "
            "10.0.0.1:6379, or local, or unset it to start Ray on this machine"
        )


def _is_address(text: str) -> bool:
    host, port = parse_address(text) or ("", "")
    return bool(host.strip()) and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16


def _recorded_cluster(named: str | None) -> Cluster | None:
    """The cluster that `ray start` recorded; with `auto`, any that runs here."""
    note = get_ray_address_file(None)
    try:
        address = services.get_ray_address_from_environment(named, None)
    except ConnectionError:
        raise RequestError(
            "RAY_ADDRESS is auto, but no Ray cluster runs on this machine; start one with `ray start --head`, "
            "or unset RAY_ADDRESS to start Ray for this command alone"
        ) from None
    except OSError as error:
        raise RequestError(
            f"{note}, in which Ray notes the cluster of this machine, cannot be read ({error.strerror}); "
            "set RAY_ADDRESS to HOST:PORT of the cluster, or to local to start Ray for this command alone"
        ) from None
    if address is None:
        return None
    if not _is_address(address):
        raise RequestError(f"{note}, in which Ray notes the cluster of this machine, holds {address!r}; delete it")
    source = "RAY_ADDRESS=auto" if named else f"the file {note}, which `ray start` writes"
    return Cluster(address, source, f"if the cluster has ended, delete {note} or set RAY_ADDRESS=local")


def check_cluster(cluster: Cluster) -> None:
    """Ask the cluster for its versions and for the node of this machine.

    Raises:
        RequestError: it does not answer, asks for a token, has other versions, or this machine is not one of its nodes.
    """
    if not cluster.source.endswith("variable RAY_ADDRESS"):
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as Ray does for a cluster of this machine
    address = services.canonicalize_bootstrap_address(cluster.address)  # the network's address of this machine
    _check_versions(cluster, _metadata(cluster, address))
    try:
        node = services.get_node_to_connect_for_driver(GcsClient(address=address), timeout_seconds=_NODE_TIMEOUT_S)
    except (RuntimeError, RayError):
        raise RequestError(
            f"this machine is no node of the Ray cluster at {cluster}; run the command on one of its machines, "
            f"make this one a node with `ray start --address={cluster.address}`, or unset RAY_ADDRESS"
        ) from None
    for name in (node.raylet_socket_name, node.object_store_socket_name):
        if not os.access(name.removeprefix("unix://"), os.W_OK):
            raise RequestError(
                f"this user may not use the Ray cluster at {cluster}: {name} belongs to another user or is gone; "
                "run the command as the user who started the cluster, or set RAY_ADDRESS=local"
            )


def _metadata(cluster: Cluster, address: str) -> bytes:
    """The versions of the cluster, as JSON."""
    request = InternalKVGetRequest(namespace=KV_NAMESPACE_CLUSTER, key=CLUSTER_METADATA_KEY)
    try:
        channel = create_gcs_channel(address)
        with channel:
            return InternalKVGcsServiceStub(channel).InternalKVGet(request, timeout=_ANSWER_TIMEOUT_S).value
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise _needs_token(cluster) from None
        raise RequestError(f"no Ray cluster answers at {cluster}: {_reason(error)}; {cluster.remedy}") from None
    except RayError:  # RAY_AUTH_MODE demands a token, and there is none
        raise _needs_token(cluster) from None


def _reason(error: grpc.RpcError) -> str:
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"nothing was heard within {_ANSWER_TIMEOUT_S:g} s"
    if error.code() == grpc.StatusCode.UNAVAILABLE and "HTTP" not in error.details():
        return error.details().rpartition(": ")[2].rstrip("]")
    return "another program listens there"


def _needs_token(cluster: Cluster) -> RequestError:
    return RequestError(
        f"the Ray cluster at {cluster} asks for a token that this command does not have; set RAY_AUTH_MODE=token, and "
        "RAY_AUTH_TOKEN or the file ~/.ray/auth_token to the cluster's token"
    )


def _check_versions(cluster: Cluster, metadata: bytes) -> None:
    if not metadata:
        return
    theirs = json.loads(metadata)
    try:
        check_version_info(theirs, "this machine")
    except RuntimeError:
        raise RequestError(
            f"the Ray cluster at {cluster} has Ray {theirs['ray_version']} and Python {theirs['python_version']}, "
            f"this environment Ray {ray.__version__} and Python {platform.python_version()}; install the cluster's "
            "versions here, or set RAY_ADDRESS=local"
        ) from None


def temporary_folder(say: Callable[[str], None]) -> Path:
    """Where a Ray that starts here keeps its sockets and logs.

    Args:
        say: takes a notice if the folder is not the usual one.
    Raises:
        RequestError: it cannot be written to.
    """
    named = [(name, os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    source, root = (*named, ("", str(_SHORT_FOLDER.parent)))[0]
    folder = Path(root).absolute() / "ray"
    longest = f"{folder}{_LONGEST_SOCKET.format(pid=os.getpid())}"
    if len(os.fsencode(longest)) > _MAX_SOCKET_BYTES:
        say(f"notice: Ray's temporary files go to {_SHORT_FOLDER}; {source} is too long a path for sockets: {root}")
        source, folder = "", _SHORT_FOLDER
    try:
        _try_to_write(folder)
    except OSError as error:
        raise RequestError(
            f"Ray cannot keep its temporary files in {folder}{source and f' (from {source})'}: {error.strerror}; "
            "set RAY_TMPDIR to a folder that exists, is yours and has room"
        ) from None
    return folder


def _try_to_write(folder: Path) -> None:
    there = folder if folder.exists() else folder.parent
    with tempfile.TemporaryFile(dir=there) as file:
        file.write(bytes(_FREE_BYTES))


def silence_warnings() -> None:
    """Silence warnings of Ray's Python code until it sets up its own log."""
    logging.getLogger("ray").setLevel(logging.ERROR)
