"""Seconds of a block in each number format."""

from typing import get_args

import timm
import torch
from timm.models import VisionTransformer

from smoothcert.manifests.job import NumberFormat
from smoothcert.workers.votes.format_speeds import block_seconds
from tests.helpers.number_formats import require


def test_every_format_of_a_job_is_timed() -> None:
    """The network stays as it was; twice the work takes longer."""
    network: VisionTransformer = timm.create_model("vit_tiny_patch16_224", depth=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    seconds = block_seconds(network, 31, torch.device("cpu"))
    assert seconds.keys() | {"int8"} == set(get_args(NumberFormat))
    assert all(value > 0 for value in seconds.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    wide: VisionTransformer = timm.create_model("vit_base_patch16_224", depth=1)
    assert block_seconds(wide, 31, torch.device("cpu"))["float32"] > 2 * seconds["float32"]  # 16 times the products


def test_int8_is_timed_where_it_can_be_computed() -> None:
    """Not elsewhere, and that is no error."""
    require("int8")
    network: VisionTransformer = timm.create_model("vit_tiny_patch16_224", depth=1)
    assert block_seconds(network, 31, torch.device("cpu"))["int8"] > 0
