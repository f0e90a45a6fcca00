"""Logits of engines: on which images, how near each other, and with how little memory."""

import pytest
import torch
from torch import Tensor

from smoothcert.workers.votes.smoothed import Smoothed


def random_images(count: int, side: int) -> Tensor:
    """[count, side, side, 3] uint8, always the same."""
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Near each other by a share of the scale of the logits; and the logits do differ, or nothing is shown."""
    assert actual.shape == expected.shape
    assert actual.dtype == torch.float32
    scale = expected.abs().max().clamp(min=1).item()
    assert expected.std() > 1e-3
    assert (actual - expected).abs().max().item() <= tolerance * scale


def assert_fewer_are_computed_together(engine: Smoothed, step: str, images: Tensor) -> None:
    """If memory runs out, the engine takes fewer at a time, and loses none; one that does not fit alone is an error.

    Args:
        engine: changed by this.
        step: the name of what the engine calls with as many as it computes together.
        images: give more than four of them.
    """
    before, compute, sizes, room = engine.logits(images), getattr(engine, step), [], 4

    def in_little_memory(together: Tensor) -> Tensor:
        if len(together) > room:
            raise torch.OutOfMemoryError
        sizes.append(len(together))
        return compute(together)

    setattr(engine, step, in_little_memory)
    assert_close(engine.logits(images), before, 1e-5)
    assert sum(sizes) == len(images) * len(before[0])
    assert 1 < max(sizes) <= room
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        engine.logits(images)
