"""The job's network gets the weights of its checkpoint, whatever a training script called them."""

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.networks.classifiers import load_classifier
from tests.helpers import reference
from tests.helpers.checkpoints import LAYOUTS, VIT, error_of, has_weights_of, load, network_of, prefixed

_AS_REFERENCE = {"mean": reference.MEAN, "std": reference.STD}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_weights_arrive_from_every_layout(layout: str, tmp_path: Path) -> None:
    """Prefixes, averages, copies and normalisers of training scripts do not matter."""
    save, _ = LAYOUTS[layout]
    network = network_of(VIT)
    assert has_weights_of(load(save(network), VIT, tmp_path, **_AS_REFERENCE), network)


@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_the_same_weights_arrive_from_safetensors(prefix: str, tmp_path: Path) -> None:
    """With and without a prefix."""
    network, file = network_of(VIT), tmp_path / "weights.safetensors"
    safetensors.torch.save_file(prefixed(prefix, network.state_dict()), file)
    assert has_weights_of(load_classifier(VIT, Preprocess(resize=None, crop=16), file, None), network)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "module.normalizer.new_mean",
            torch.tensor([0.5, 0.4, 0.3]),
            r"^preprocess\.mean: \[0\.4914, 0\.4822, 0\.4465\] is not what .*set it to \[0\.5, 0\.4, 0\.3\]$",
        ),
        (
            "module.attacker.normalize.new_std",
            torch.ones(3, 1, 1),
            r"^preprocess\.std: .*attacker\.normalize\.new_std.*set it to \[1\.0, 1\.0, 1\.0\]$",
        ),
        ("module.normalizer.new_mean", torch.ones(1).expand(10**8), r"^preprocess\.mean: .*set it to three numbers$"),
    ],
)
def test_error_names_the_mean_or_std_of_the_checkpoint(
    name: str, value: torch.Tensor, says: str, tmp_path: Path
) -> None:
    """A normaliser beside the network must be that of the job; the error says what to set."""
    weights = reference.state_dict(network_of(VIT)) | {name: value}
    assert re.search(says, error_of({"model": weights}, VIT, tmp_path, **_AS_REFERENCE))
