"""Products of 8-bit integers against integer arithmetic, and blocks made of them against float32."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.votes import int8_blocks
from smoothcert.workers.votes.int8_blocks import Int8Blocks
from tests.helpers.number_formats import require


@pytest.fixture(autouse=True)
def _int8_here() -> Iterator[None]:
    require("int8")
    yield


def _blocks(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    blocks: nn.Sequential = timm.create_model("vit_tiny_patch16_224", depth=2, **options).eval().blocks
    for parameter in blocks.requires_grad_(False).parameters():
        parameter.normal_(0, 1.2 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.5)
    return blocks


def _tokens(seed: int = 0) -> Tensor:
    with torch.inference_mode():
        return torch.randn(3, 31, 192, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("inputs", [16, 192, 520])  # 520 times 255 times 127 are below 2^24
def test_products_are_those_of_integers(inputs: int) -> None:
    """Also where all numbers are the largest or the smallest."""
    random = torch.Generator().manual_seed(0)
    bytes_RM = torch.randint(1, 256, (31, inputs), generator=random)
    weight_OM = torch.randint(-127, 128, (48, inputs), generator=random)
    bytes_RM[0], bytes_RM[1], weight_OM[0], weight_OM[1] = 255, 1, 127, -127
    packed = int8_blocks._packed(weight_OM.to(torch.int8))
    found = int8_blocks._product(bytes_RM.to(torch.uint8), packed, torch.ones(48), torch.float32)
    assert torch.equal(found.long(), (bytes_RM - 128) @ weight_OM.t())


def test_a_row_is_rounded_to_254_steps_of_its_own() -> None:
    """A literal reading; rows of zeros stay zeros."""
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1e-8, 1e4, 1, 0])[:, None]
    found, scales = int8_blocks._quantised(rows)
    exact: NDArray[np.float64] = rows.double().numpy()
    steps = np.abs(exact).max(axis=1, keepdims=True)[:4] / 127
    assert np.abs(found[:4].double().numpy() - 128 - exact[:4] / steps).max() < 0.5001
    assert np.allclose(scales[:4], steps, rtol=1e-6)
    assert (found[4] == 128).all()


@pytest.mark.parametrize("options", [{}, {"init_values": 0.1}])
def test_blocks_are_near_float32(options: dict[str, Any]) -> None:
    """Within 5 % of what they add, farther than bfloat16, also with scales of branches."""
    blocks, tokens = _blocks(**options), _tokens()
    expected = blocks(tokens.float())
    shorter = _blocks(**options).bfloat16()(tokens).float()
    found = Int8Blocks(blocks)(tokens.clone()).float()
    added = (expected - tokens.float()).norm()
    assert (shorter - expected).norm() < (found - expected).norm() < 0.05 * added


@pytest.mark.parametrize("other", [0.0, 1e30, float("inf"), float("nan")])
def test_a_sequence_does_not_see_the_others(other: float) -> None:
    """Not a bit of it changes, whatever they are."""
    run, tokens = Int8Blocks(_blocks()), _tokens()
    before = run(tokens.clone())
    replaced = torch.full_like(tokens, other)
    replaced[1] = tokens[1]
    assert torch.equal(run(replaced)[1], before[1])
    assert torch.equal(run(tokens[1:2].clone())[0], before[1])


@pytest.mark.parametrize("weight", ["0.mlp.fc1.weight", "0.attn.proj.bias", "1.norm1.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(weight: str, value: float) -> None:
    """8 bits hold no NaN, but their scales do."""
    blocks = _blocks()
    blocks.get_parameter(weight).view(-1)[0] = value
    assert not Int8Blocks(blocks)(_tokens()).isfinite().all(dim=2).any()


def test_other_blocks_are_refused() -> None:
    """Their norms of queries and keys would be left out."""
    with pytest.raises(RequestError, match=r"model.dtype: int8 is for plain blocks .*; use bfloat16"):
        Int8Blocks(_blocks(qk_norm=True))


def test_products_that_are_cut_off_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on processors that add two products in 16 bits."""
    exact = int8_blocks._product
    monkeypatch.setattr(int8_blocks, "_product", lambda *arguments: exact(*arguments).clamp(max=2**15 - 1))
    with pytest.raises(RequestError, match=r"model.dtype: this processor has no exact 8-bit products .*bfloat16"):
        Int8Blocks(_blocks())


def test_a_torch_without_such_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every build of torch has oneDNN; `plan` tries int8 on all of them."""

    def missing(*_arguments: Any) -> Tensor:
        raise NotImplementedError("Could not run 'onednn::qlinear_prepack' with arguments from the 'CPU' backend.")

    monkeypatch.setattr(int8_blocks, "_packed", missing)
    with pytest.raises(RequestError, match=r"^model.dtype: this build of torch lacks oneDNN, .*; use bfloat16$"):
        Int8Blocks(_blocks())


def test_a_wrong_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled steps must compute what the steps compute one by one."""
    added, uncompiled = int8_blocks._added, 2  # a block adds twice

    def wrong(*arguments: Tensor) -> Tensor:
        nonlocal uncompiled
        uncompiled -= 1
        return added(*arguments) if uncompiled >= 0 else arguments[0]

    monkeypatch.setattr(int8_blocks, "_added", wrong)
    monkeypatch.setattr(int8_blocks, "_compiled", lambda step: step)
    int8_blocks._compile_steps.cache_clear()
    with pytest.raises(RequestError, match="computes int8 wrongly"):
        Int8Blocks(_blocks())


def test_without_a_compiler_the_error_says_so(tmp_path: Path) -> None:
    """One line, with what to do."""
    line = _refusal({"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")})
    assert "model.dtype: int8 needs torch.compile, which fails here: InvalidCxxCompiler" in line
    assert "; install a C++ compiler and the headers of Python (g++ and python3-dev) on each machine that votes" in line
    assert line.endswith(", or use bfloat16")


def test_if_the_compiler_fails_the_error_is_the_compilers(tmp_path: Path) -> None:
    """Such as a missing header, which torch's first line does not name."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec g++ --version\necho "a.cpp: error: no Python.h"; exit 1\n'
    )
    compiler.chmod(0o755)
    line = _refusal({"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")})
    assert "which fails here: a.cpp: error: no Python.h; install" in line


def _refusal(variables: dict[str, str]) -> str:
    """The last line of a process that has these variables and asks for int8."""
    code = (
        "from torch import nn; from smoothcert.workers.votes.int8_blocks import Int8Blocks; Int8Blocks(nn.Sequential())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | variables)
    return done.stderr.splitlines()[-1]
