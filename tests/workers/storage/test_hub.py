"""A name of the hub gives the run that its file gives. A small hub of our own serves the files."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.hub import fetch
from tests.helpers import jobs
from tests.helpers.house import HOUSE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PLAN = """
import json, sys
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.plan import make_plan
try:
    plan = make_plan(load_job(sys.argv[1], sys.argv[2:]))
    assert "torch" not in sys.modules
    print(json.dumps([plan.run.run_id, plan.checkpoint_sha256, plan.checkpoint_layout]))
except RequestError as error:
    print(json.dumps(str(error)))
"""


class Hub(ThreadingHTTPServer):
    """Serves files by path, as the Hub does: a HEAD tells the commit and the ETag, a GET gives the bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        repository, _, file = self.path.partition("/resolve/")
        data = self.server.files.get(self.path)  # type: ignore[attr-defined]
        self.send_response(200 if data is not None else 404)
        if data is None:
            known = any(path.startswith(repository + "/") for path in self.server.files)  # type: ignore[attr-defined]
            self.send_header("X-Error-Code", "EntryNotFound" if known and file else "RepoNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room in that folder"),
        (RuntimeError("Data processing error: I/O error: No space left (os error 28)"), "make room in that folder"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied; make that folder writable"),
        (OSError(errno.ECONNREFUSED, "Connection refused"), None),
        (ConnectionError("no route to the hub"), None),
    ],
)
def test_error_names_the_cache_that_cannot_be_written(error: Exception, says: str | None, monkeypatch) -> None:
    """A full disk is not a wrong name or a broken network, and the other way round."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    fetch.cache_clear()
    with pytest.raises(RequestError) as refused:
        fetch("timm:small")
    line = str(refused.value)
    if says is None:
        assert line.endswith("check name and network, and try again")
    else:
        cache = huggingface_hub.constants.HF_HUB_CACHE
        assert line.startswith(f"model.checkpoint: timm:small cannot be kept in {cache}: ")
        assert line.endswith(f"{says}, or set HF_HOME to another folder")


def _plan(job: Path, checkpoint: str, hub: Hub, **environment: str) -> object:
    """Of a process of its own, which reads the environment anew: run id, SHA-256 and layout, or the error."""
    home = str(job.parent / "home")
    result = subprocess.run(
        [sys.executable, "-c", _PLAN, job, f"model.checkpoint={json.dumps(checkpoint)}"],
        cwd=HOUSE,
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": home, "HF_HUB_DISABLE_XET": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    jobs.write_shards(tmp_path, shards=1, images=1)
    path = jobs.write_job(tmp_path)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
    return path


def test_a_hub_name_gives_the_run_of_its_file(job: Path, hub: Hub) -> None:
    """Planning needs no torch, and the file is kept for use without a network."""
    data = (job.parent / "weights.safetensors").read_bytes()
    hub.files["/timm/small.a_b/resolve/main/model.safetensors"] = data
    hub.files["/me/small/resolve/v1.0/model.safetensors"] = data
    of_file = _plan(job, str(job.parent / "weights.safetensors"), hub)
    assert isinstance(of_file, list)
    assert of_file[1:] == [hashlib.sha256(data).hexdigest(), "safetensors"]
    for name in ("timm:small.a_b", "hf-hub:timm/small.a_b", "hf-hub:me/small@v1.0"):
        assert _plan(job, name, hub) == of_file
    assert _plan(job, "timm:small.a_b", hub, HF_HUB_OFFLINE="1") == of_file


@pytest.mark.parametrize(
    ("name", "environment", "says"),
    [
        ("timm:small", {"HF_HUB_OFFLINE": "1"}, "is not in this machine's cache, and the hub cannot be reached"),
        ("hf-hub:me/none", {}, "the hub has no hf-hub:me/none that you may read"),
        ("hf-hub:me/small", {}, "me/small has no model.safetensors"),
        ("hf-hub:small", {}, "hf-hub:small is not a name of the hub; use hf-hub:OWNER/NAME"),
        ("timm:a/b", {}, "timm:a/b is not a name of the hub"),
    ],
)
def test_error_says_why_the_weights_cannot_be_fetched(
    name: str, environment: dict[str, str], says: str, job: Path, hub: Hub
) -> None:
    """In one line: the name, the file or the network is missing."""
    hub.files["/me/small/resolve/main/other"] = b""
    error = _plan(job, name, hub, **environment)
    assert isinstance(error, str)
    assert says in error
    assert "\n" not in error
