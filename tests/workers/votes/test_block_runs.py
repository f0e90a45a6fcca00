"""Which code computes blocks."""

from typing import get_args

import pytest
import timm
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import NumberFormat
from smoothcert.workers.votes.block_runs import block_run, torch_dtype
from tests.helpers.logits import assert_close
from tests.helpers.number_formats import require

_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3, "int8": 1e-1}


@pytest.mark.parametrize("dtype", get_args(NumberFormat))
@pytest.mark.parametrize("depth", [1, 3])
def test_every_format_computes_the_blocks(dtype: str, depth: int) -> None:
    """Near timm's own blocks; the tokens have the format of what lies between blocks."""
    require(dtype)
    torch.manual_seed(0)
    blocks = timm.create_model("vit_tiny_patch16_224", depth=depth).eval().requires_grad_(False).blocks
    with torch.inference_mode():
        tokens = torch.randn(3, 31, 192)
        expected = blocks(tokens)
        found = block_run(blocks, dtype, torch.device("cpu"))(tokens.to(torch_dtype(dtype)))
    assert found.dtype == torch_dtype(dtype)
    assert_close(found.float(), expected, _TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", get_args(NumberFormat))
def test_a_network_of_one_block_has_none_before_its_last(dtype: str) -> None:
    """Its tokens stay as they are."""
    require(dtype)
    tokens = torch.randn(2, 3, 4)
    assert torch.equal(block_run(torch.nn.Sequential(), dtype, torch.device("cpu"))(tokens), tokens)


def test_int8_is_refused_on_a_gpu() -> None:
    """Its kernels are for CPUs."""
    with pytest.raises(RequestError, match=r"^model.dtype: int8 is for CPUs; use bfloat16 on a GPU$"):
        block_run(torch.nn.Sequential(), "int8", torch.device("cuda"))
