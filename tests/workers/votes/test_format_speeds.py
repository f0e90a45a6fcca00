"""Seconds of a block in each number format."""

import timm
import torch
from timm.models import VisionTransformer

from smoothcert.workers.votes.format_speeds import block_seconds


def test_every_format_of_a_job_is_timed() -> None:
    """The network stays as it was; twice the work takes longer."""
    network: VisionTransformer = timm.create_model("vit_tiny_patch16_224", depth=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    seconds = block_seconds(network, 31, torch.device("cpu"))
    assert seconds.keys() == {"float32", "bfloat16", "float16"}
    assert all(value > 0 for value in seconds.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    wide: VisionTransformer = timm.create_model("vit_base_patch16_224", depth=1)
    assert block_seconds(wide, 31, torch.device("cpu"))["float32"] > 2 * seconds["float32"]  # 16 times the products
