"""Cutout hides squares around pixels of the image, as many as asked for."""

import numpy as np
import pytest
import torch

from smoothcert.workers.ablations.cutouts import CutoutSquares


@pytest.mark.parametrize("count", [1, 2])
def test_every_number_is_a_choice_of_places(count: int) -> None:
    """Squares may reach over the edge; arrays and tensors give the same."""
    cutout = CutoutSquares(4, 5, side=3, count=count, fill="mean")
    assert cutout.num_ablations == 20**count
    numbers = np.random.default_rng(0).integers(0, cutout.num_ablations, 50)
    shown = cutout.visible(numbers)
    for number, visible in zip(numbers.tolist(), shown, strict=True):
        hidden = np.zeros((4, 5), bool)
        for _ in range(count):
            number, place = divmod(number, 20)
            y, x = divmod(place, 5)
            hidden[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
        assert (visible == ~hidden).all()
    tables = [torch.from_numpy(table) for table in cutout.tables]
    assert (cutout.visible(torch.from_numpy(numbers), tables).numpy() == shown).all()
