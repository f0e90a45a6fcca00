"""The tensors of transformers arrive in timm's network, whatever version of transformers named them."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.networks.transformers_names import with_timm_names
from tests.helpers.transformers_folders import save, write_short_job

Weights = dict[str, torch.Tensor]


def _job(folder: Path, name: str) -> Job:
    save(folder / "network", name)
    return load_job(write_short_job(folder, "network"))


def _rewrite(job: Job, change: Weights, *, without: str | None = None) -> None:
    file = Path(job.model.checkpoint)
    weights = {name: value for name, value in safetensors.torch.load_file(file).items() if name != without}
    safetensors.torch.save_file(weights | change, file)


def _error(job: Job) -> str:
    with pytest.raises(RequestError) as error:
        load_classifier(job.model, job.preprocess, Path(job.model.checkpoint), None)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["vit", "deit with teacher", "dinov2 with swiglu", "registers"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_files_and_of_modules_give_the_same_tensors(name: str, prefix: str, tmp_path: Path) -> None:
    """save_pretrained writes older names than those of the modules; a training script saves those of the modules."""
    theirs = save(tmp_path / "network", name)
    job = load_job(write_short_job(tmp_path, "network"))
    network = build_classifier(job.model, 16)
    of_file = with_timm_names(safetensors.torch.load_file(job.model.checkpoint), network)
    modules = {prefix + key: value for key, value in theirs.state_dict().items()}
    assert modules.keys() != safetensors.torch.load_file(job.model.checkpoint).keys()
    of_modules = with_timm_names(modules, network)
    assert of_file.keys() == of_modules.keys() == network.state_dict().keys()
    assert all(torch.equal(of_file[key], of_modules[key]) for key in of_file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_are_resampled_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    """Also those of a checkpoint in half precision."""
    job = _job(tmp_path, "dinov2 of larger images")
    halves = {key: value.to(dtype) for key, value in safetensors.torch.load_file(job.model.checkpoint).items()}
    network = build_classifier(job.model, 16)
    exact = with_timm_names({key: value.float() for key, value in halves.items()}, network)
    assert torch.equal(with_timm_names(halves, network)["pos_embed"], exact["pos_embed"])


def test_tensors_that_do_not_classify_are_left_out(tmp_path: Path) -> None:
    """The pooler of a pretrained network."""
    job = _job(tmp_path, "vit")
    _rewrite(job, {"vit.pooler.dense.weight": torch.ones(32, 32), "vit.pooler.dense.bias": torch.ones(32)})
    load_classifier(job.model, job.preprocess, Path(job.model.checkpoint), None)


def test_an_unknown_tensor_is_refused(tmp_path: Path) -> None:
    """It may change what the network computes."""
    job = _job(tmp_path, "vit")
    _rewrite(job, {"vit.encoder.layer.0.adapter.weight": torch.ones(3)})
    assert "has besides vit.encoder.layer.0.adapter.weight" in _error(job)


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ("vit.encoder.layer.1.attention.attention.key.bias", "lacks blocks.1.attn.qkv.bias"),
        ("vit.layernorm.weight", "lacks norm.weight"),
        ("classifier.weight", "lacks head.weight"),
    ],
)
def test_error_names_a_tensor_that_is_missing(without: str, says: str, tmp_path: Path) -> None:
    """By timm's name; thirds of a tensor are not enough."""
    job = _job(tmp_path, "vit")
    _rewrite(job, {}, without=without)
    assert says in _error(job)


def test_positions_of_other_images_are_refused(tmp_path: Path) -> None:
    """transformers resamples those of DINOv2 only."""
    save(tmp_path / "network", "vit")
    job = load_job(write_short_job(tmp_path, "network", preprocess={"resize": 32, "crop": 32}))
    assert "the file is of 16 x 16 pixels" in _error(job)


@pytest.mark.parametrize("name", ["vit", "deit with teacher", "registers with swiglu"])
def test_a_tensor_of_another_shape_is_refused(name: str, tmp_path: Path) -> None:
    """Each in turn, in one line; the mask token does not classify."""
    job = _job(tmp_path, name)
    original = safetensors.torch.load_file(job.model.checkpoint)
    for key in original:
        if not key.endswith("mask_token"):
            safetensors.torch.save_file(original | {key: torch.zeros(7)}, job.model.checkpoint)
            assert "does not fit transformers_vit" in _error(job)
