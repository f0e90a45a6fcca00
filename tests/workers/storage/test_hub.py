"""A name of the hub gives the run that its file gives. A small hub of our own serves the files."""

import errno
import hashlib
import json
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.hub import fetch
from tests.helpers import jobs
from tests.helpers.hub import Hub, run_with

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
    script_arguments = (job, f"model.checkpoint={json.dumps(checkpoint)}")
    return json.loads(run_with(hub, job.parent / "home", _PLAN, *script_arguments, **environment))


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
        ("hf-hub:me/pickled", {}, "me/pickled has no model.safetensors: its weights are pickled (pytorch_model.bin)"),
        ("hf-hub:me/parts", {}, "me/parts has no model.safetensors: its network is in parts"),
        ("hf-hub:me/gated", {}, "hf-hub:me/gated is gated: accept its conditions"),
    ],
)
def test_error_says_why_the_weights_cannot_be_fetched(
    name: str, environment: dict[str, str], says: str, job: Path, hub: Hub
) -> None:
    """In one line: the name, the file or the network is missing."""
    hub.files["/me/small/resolve/main/other"] = b""
    hub.files["/me/pickled/resolve/main/pytorch_model.bin"] = b"..."
    hub.files["/me/parts/resolve/main/model.safetensors.index.json"] = b"{}"
    hub.gated.add("me/gated")
    error = _plan(job, name, hub, **environment)
    assert isinstance(error, str)
    assert says in error
    assert "\n" not in error
