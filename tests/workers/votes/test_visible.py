"""Masks of ablations of several kinds that are numbered through."""

import numpy as np
import torch

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Masks
from smoothcert.workers.votes.visible import VisiblePixels
from tests.helpers.ablations import other_kinds


def test_kinds_follow_each_other() -> None:
    """Each number has the mask of its kind, in any order and more than once."""
    kinds = [
        ablations_of(WindowAblation(kind="block", size=3, stride=2), 8, 8),
        Masks.whole(8, 8),
        *other_kinds(8).values(),
    ]
    masks = np.concatenate([kind.visible(np.arange(kind.num_ablations)) for kind in kinds])
    visible = VisiblePixels(kinds, torch.device("cpu"))
    assert visible.num_ablations == len(masks)
    numbers = np.random.default_rng(0).permutation(np.repeat(np.arange(len(masks)), 2))
    assert (visible.of(torch.from_numpy(numbers)).numpy() == masks[numbers]).all()
