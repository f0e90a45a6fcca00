"""A network of the user's own code votes as any other, and its code runs only if that is allowed."""

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import nn
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job, Model, load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.costs import costs_of
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.certify.options import Options
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.networks.classifiers import build_classifier
from tests.helpers import jobs

_CODE = """
from pathlib import Path
Path(__file__).with_name("was_run").touch()
import timm
from torch import nn

def dense(num_classes, img_size, width=4):
    head = nn.Linear(width * (img_size // 4) ** 2, num_classes)
    return nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.ReLU(), nn.Flatten(), head)

def vit(num_classes, img_size):
    size = {"patch_size": 4, "depth": 1, "embed_dim": 32, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", img_size=img_size, num_classes=num_classes, **size)

def broken(num_classes, img_size):
    raise KeyError("no such thing")

def number(num_classes, img_size):
    return 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's own, where Python finds it."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "mine.py").write_text(_CODE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return folder


def _model(function: str, **changes: Any) -> dict[str, Any]:
    return {"architecture": f"python:mine:{function}", "code_version": "1", "checkpoint": "w.safetensors"} | {
        "classes": jobs.CLASSES,
        **changes,
    }


def _job(folder: Path, function: str, **changes: Any) -> Job:
    jobs.write_shards(folder, shards=1, images=4)
    job = load_job(jobs.write_job(folder, model=_model(function, **changes)))
    torch.manual_seed(0)
    network = build_classifier(job.model, jobs.CROP, allow_code=True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    safetensors.torch.save_file(network.state_dict(), job.model.checkpoint)
    return job


@pytest.mark.parametrize(("function", "changes"), [("dense", {"masked_tokens": "keep"}), ("vit", {})])
@pytest.mark.usefixtures("package")
def test_such_a_network_votes_and_its_votes_are_replayed(
    function: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """A torch module with black pixels, a VisionTransformer of timm with dropped tokens."""
    job = _job(tmp_path, function, **changes)
    plan = make_plan(job, allow_code=True)
    begin(plan)
    certifier = plan.certifier(threads=1)
    for task in plan.todo:
        assert list(certifier.certify(task))
    certify_all(job, Options(allow_code=True))
    assert verify(plan.run.url, replay=4, allow_code=True).problems == ()
    assert verify(plan.run.url).problems == ()
    with pytest.raises(RequestError, match="runs code that this file names"):
        verify(plan.run.url, replay=4)


def test_a_vit_of_ones_own_votes_as_timms(package: Path, tmp_path: Path) -> None:
    """The same weights give the same votes, in runs of their own."""
    own = _job(tmp_path, "vit")
    timms = own.model_copy(
        update={
            "model": Model(
                architecture="vit_tiny_patch16_224",
                options=jobs.OPTIONS,
                checkpoint=own.model.checkpoint,
                classes=jobs.CLASSES,
            )
        }
    )
    plans = [make_plan(job, allow_code=True) for job in (own, timms)]
    tables = []
    for plan in plans:
        begin(plan)
        assert list(plan.certifier(threads=1).certify(plan.todo[0]))
        [votes] = plan.run.published()
        tables.append((plan.run.url, votes))
    assert plans[0].run.run_id != plans[1].run.run_id
    first, second = (pq.read_table(Path(url) / "votes" / Path(name).name)["votes"] for url, name in tables)
    assert first.equals(second)


def test_code_does_not_run_unless_it_is_allowed(package: Path, tmp_path: Path) -> None:
    """Neither in a plan, nor by any command; the error says how to allow it."""
    torch.save({}, tmp_path / "w.safetensors")
    jobs.write_shards(tmp_path, shards=1, images=1)
    path = jobs.write_job(tmp_path, model=_model("vit"))
    job = load_job(path)
    for call in (lambda: make_plan(job), lambda: costs_of(job, 1.0), lambda: build_classifier(job.model, 16)):
        with pytest.raises(RequestError, match=r"^model\.architecture: python:mine:vit runs code .* --allow-code"):
            call()
    for command in ("plan", "certify"):
        result = CliRunner().invoke(app, [command, str(path)])
        assert result.exit_code == 2
    assert not (package / "was_run").exists()


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("none", r"cannot be imported here \(AttributeError: .*none"),
        ("broken", r"failed for 3 classes, 16 pixels and options \{\}: KeyError: 'no such thing'"),
        ("number", "returned a int; return a torch module"),
        ("dense", "is no plain VisionTransformer and has no tokens to drop; set model.masked_tokens: keep"),
    ],
)
@pytest.mark.usefixtures("package")
def test_error_says_what_is_wrong_with_the_function(function: str, says: str) -> None:
    """In one line."""
    with pytest.raises(RequestError, match=says) as error:
        build_classifier(Model.model_validate(_model(function)), 16, allow_code=True)
    assert "\n" not in str(error.value)


def test_error_says_that_a_module_is_not_on_this_machine() -> None:
    """As on a node of a cluster that lacks the code."""
    model = Model.model_validate(_model("vit") | {"architecture": "python:not_here.at_all:vit"})
    with pytest.raises(RequestError, match="install its package on every machine, or put its folder into PYTHONPATH"):
        build_classifier(model, 16, allow_code=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"code_version": None}, "code_version: missing"),
        ({"architecture": "vit_tiny_patch16_224"}, "is no code of yours; leave code_version out"),
        ({"architecture": "python:mine"}, "write it as python:package.module:factory"),
        ({"architecture": "python:mine.vit"}, "write it as python:package.module:factory"),
        ({"architecture": "python:os:system('ls')"}, "write it as python:package.module:factory"),
    ],
)
def test_a_job_names_a_function_and_a_version(changes: dict[str, Any], says: str) -> None:
    """The version makes other code another run."""
    with pytest.raises(ValidationError, match=says.replace("(", r"\(")):
        Model.model_validate(_model("vit") | changes)
