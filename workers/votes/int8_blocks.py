"""The blocks of a Vision Transformer on a CPU, with products of 8-bit integers.

Each row of a weight and each token has a scale of its own: with one scale for a batch, a patch could change votes that
do not see it. oneDNN multiplies unsigned tokens, whose zero is 128, by signed weights, and adds up exactly. All other
numbers are stored as bfloat16 and computed in float32; attention is that of bfloat16 blocks.

Quantising would take as long as the products save, because each step of torch reads and writes all numbers. So
torch.compile joins the steps between two products into one. It needs a C++ compiler, the headers of Python and a folder
that it can write to.

    S sequences    n tokens of each    R = S n rows    D width    M inputs, O outputs of a product

Covered: timm's plain blocks. Not covered: other blocks, formats and devices (block_runs.py).
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import one_line
from smoothcert.workers.votes.blocks import is_plain, mix_tokens, prepare_block

_ZERO, _LARGEST = 128, 127  # tokens are from 1 to 255, weights from -127 to 127
_SMALLEST_SCALE = 1e-30  # of a row of zeros
_INPUTS = 64  # enough for a sum that 16 bits cannot hold
_ROUNDING = 0.05  # of a block, by its norm: a number may be rounded to the next byte
_ERROR_LENGTH = 160  # characters of torch's or the compiler's own text
# The compiler uses as many threads as torch has when the step runs, and starts no processes of its own.
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"compile_threads": 1, "cpp.dynamic_threads": True}


class Int8Blocks:
    """Computes all rows of blocks.

    Args:
        blocks: float32, on a CPU; changed.
    Raises:
        RequestError: the blocks are not plain, or this machine cannot compute them so.
    """

    def __init__(self, blocks: nn.Sequential) -> None:
        for block in blocks:
            prepare_block(block)
        if not all(map(is_plain, blocks)):
            raise RequestError(
                "model.dtype: int8 is for plain blocks of Vision Transformers, this network has others; use bfloat16"
            )
        _refuse_inexact_products()
        _compile_steps()
        self._blocks = [_Int8Block(block) for block in blocks]

    @torch.inference_mode()
    def __call__(self, tokens_SnD: Tensor) -> Tensor:
        for block in self._blocks:
            tokens_SnD = block(tokens_SnD)
        return tokens_SnD


class _Int8Block:
    def __init__(self, block: Any) -> None:
        self._norm1, self._norm2 = _Norm(block.norm1), _Norm(block.norm2)
        self._attn, self._act = block.attn, block.mlp.act
        self._qkv, self._proj = _Int8Linear(block.attn.qkv), _Int8Linear(block.attn.proj)
        self._fc1, self._fc2 = _Int8Linear(block.mlp.fc1), _Int8Linear(block.mlp.fc2)

    def __call__(self, tokens_SnD: Tensor) -> Tensor:
        tokens_RD = tokens_SnD.flatten(0, 1)
        qkv_R3D = self._qkv(*self._norm1(tokens_RD))
        mixed_SnD = mix_tokens(qkv_R3D.unflatten(0, tokens_SnD.shape[:2]), self._attn)
        tokens_RD = self._proj.add_to(tokens_RD, mixed_SnD.flatten(0, 1))
        hidden_RM = self._act(self._fc1(*self._norm2(tokens_RD)))
        return self._fc2.add_to(tokens_RD, hidden_RM).view_as(tokens_SnD)


class _Norm:
    """A norm whose output is quantised."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self._weight, self._bias, self._eps = norm.weight.detach(), norm.bias.detach(), norm.eps

    def __call__(self, tokens_RD: Tensor) -> tuple[Tensor, Tensor]:
        normed: tuple[Tensor, Tensor] = _compiled(_normed_and_quantised)(tokens_RD, self._weight, self._bias, self._eps)
        return normed


class _Int8Linear:
    """A linear layer. torch.compile would compile anew for each shape of a Parameter, so the bias is a plain tensor."""

    def __init__(self, linear: nn.Linear) -> None:
        weight_OM, self._bias = linear.weight.detach(), linear.bias.detach()
        self._scales = weight_OM.abs().amax(1).clamp_min(_SMALLEST_SCALE) / _LARGEST
        self._packed = _packed((weight_OM / self._scales[:, None]).round().to(torch.int8))

    def __call__(self, bytes_RM: Tensor, scales_R1: Tensor) -> Tensor:
        """The layer's output for quantised rows."""
        return _compiled(_scaled)(self._product(bytes_RM), scales_R1, self._bias)

    def add_to(self, tokens_RO: Tensor, rows_RM: Tensor) -> Tensor:
        """The tokens plus the layer's output."""
        bytes_RM, scales_R1 = _compiled(_quantised)(rows_RM)
        return _compiled(_added)(tokens_RO, self._product(bytes_RM), scales_R1, self._bias)

    def _product(self, bytes_RM: Tensor) -> Tensor:
        return _product(bytes_RM, self._packed, self._scales, torch.bfloat16)


def _packed(weight_OM: Tensor) -> Tensor:
    """int8 weights as oneDNN multiplies by them."""
    return torch.ops.onednn.qlinear_prepack(weight_OM, None)


def _product(bytes_RM: Tensor, packed: Tensor, scales_O: Tensor, dtype: torch.dtype) -> Tensor:
    """[R, O]: (bytes - 128) times the weights, times their scales."""
    zeros = torch.zeros(len(scales_O), dtype=torch.int32)
    return torch.ops.onednn.qlinear_pointwise(
        bytes_RM, 1.0, _ZERO, packed, scales_O, zeros, None, 1.0, 0, dtype, "none", [], ""
    )


@cache
def _compiled(step: Callable[..., Any]) -> Callable[..., Any]:
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns that there is no GPU
    return torch.compile(step, dynamic=True, options=_OPTIONS)


def _normed_and_quantised(tokens_RD: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return _quantised(F.layer_norm(tokens_RD.float(), tokens_RD.shape[-1:], weight, bias, eps))


def _quantised(rows_RM: Tensor) -> tuple[Tensor, Tensor]:
    """Each row divided by a scale, so that its numbers are from 1 to 255 with their zero at 128; and the scales."""
    exact_RM = rows_RM.float()
    scales_R1 = exact_RM.abs().amax(1, keepdim=True).clamp_min(_SMALLEST_SCALE) / _LARGEST
    return (exact_RM * (1 / scales_R1)).round().add(_ZERO).to(torch.uint8), scales_R1


def _scaled(product_RO: Tensor, scales_R1: Tensor, bias: Tensor) -> Tensor:
    return (product_RO.float() * scales_R1 + bias).to(product_RO.dtype)


def _added(tokens_RO: Tensor, product_RO: Tensor, scales_R1: Tensor, bias: Tensor) -> Tensor:
    return (tokens_RO.float() + (product_RO.float() * scales_R1 + bias)).to(tokens_RO.dtype)


def _refuse_inexact_products() -> None:
    """Processors without instructions for 8-bit products cut sums of two products off at 16 bits."""
    bytes_RM = torch.full((16, _INPUTS), 255, dtype=torch.uint8)
    weight_OM = torch.full((16, _INPUTS), _LARGEST, dtype=torch.int8)
    try:
        found_RO = _product(bytes_RM, _packed(weight_OM), torch.ones(16), torch.float32)
    except (RuntimeError, AttributeError):
        raise RequestError("model.dtype: this build of torch lacks oneDNN, which int8 needs; use bfloat16") from None
    if not (found_RO == _INPUTS * _LARGEST * _LARGEST).all():
        raise RequestError(
            "model.dtype: this processor has no exact 8-bit products (avx512_vnni, avx_vnni or amx_int8 in "
            "/proc/cpuinfo), which int8 needs; use bfloat16"
        )


@cache
def _compile_steps() -> None:
    """Compile all steps, and compare a made-up block with the same steps run one by one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = _Int8Block(Block(64, 2, qkv_bias=True))
    with torch.inference_mode():
        tokens_SnD = torch.arange(3 * 31 * 64.0).sin().bfloat16().view(3, 31, 64)
        try:
            with torch.compiler.set_stance("force_eager"):
                expected_SnD = block(tokens_SnD).float()
            found_SnD = block(tokens_SnD).float()
        except Exception as error:  # torch.compile raises errors of many kinds
            raise RequestError(
                f"model.dtype: int8 needs torch.compile, which fails here: {_said(error)}; install a C++ compiler and "
                "the headers of Python (g++ and python3-dev) on each machine that votes, name a folder that can be "
                "written to in TORCHINDUCTOR_CACHE_DIR, or use bfloat16"
            ) from None
        if not (found_SnD - expected_SnD).norm() <= _ROUNDING * expected_SnD.norm():
            raise RequestError("model.dtype: the C++ compiler of this machine computes int8 wrongly; use bfloat16")


def _said(error: Exception) -> str:
    """The line of an error that says most: the first of the compiler's errors, if it ran, else the first line."""
    lines = str(error).splitlines()
    return one_line(next((line for line in lines if "error: " in line), lines[0] if lines else error), _ERROR_LENGTH)
