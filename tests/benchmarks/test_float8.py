"""How the table of float8 compares votes; nothing of it needs a GPU."""

import math

import pytest
import torch

pytest.importorskip("triton")

from benchmarks.float8 import agreement


def test_votes_and_margins_are_compared_with_exact_ones() -> None:
    """By hand: one image, four ablations, three classes; a vote is clear from a margin of 5 % of 10 on."""
    exact = torch.tensor([[[10.0, 0, 0], [0, 2, 1], [1, 0, 1.3], [0.2, 0.1, 0]]])
    found = torch.tensor([[[9.0, 0, 0], [0, 2, 3], [1.4, 0, 1.3], [0.2, 0.1, 0]]])
    expected = {
        "equal_votes": 2 / 4,
        "clear_votes": 2 / 4,
        "clear_equal_votes": 1 / 2,
        "largest_margin": 1,
        "logits_error": math.sqrt(1 + 4 + 0.16) / math.sqrt(100 + 5 + 2.69 + 0.05),
    }
    assert agreement(found, exact) == pytest.approx(expected)


def test_equal_logits_agree_in_everything() -> None:
    """Where no vote is clear, nothing is said of clear ones."""
    exact = torch.tensor([[[1.0, 0.999]]])
    assert agreement(exact, exact) == {"equal_votes": 1, "clear_votes": 0, "largest_margin": 0, "logits_error": 0}
