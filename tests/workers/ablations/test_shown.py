"""Ablations that are given mask by mask."""

import numpy as np
import pytest

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.shown import Masks
from smoothcert.workers.ablations.tokens import token_groups, visible_pixels


def test_the_whole_image_is_one_ablation() -> None:
    """The clean image has one ablation, which shows every token whole."""
    whole = Masks.whole(4, 6)
    (group,) = token_groups(whole, 2)
    assert whole.num_ablations == 1
    assert group.tokens.tolist() == [list(range(6))]
    assert visible_pixels(whole, group, 2).all()


@pytest.mark.parametrize("ablation", [0, 5, 11])
def test_one_ablation_of_several_shows_what_it_showed(ablation: int) -> None:
    """Its pixels and tokens are those of its place among the others, upsampled or not."""
    blocks = Geometry.of(WindowAblation(kind="block", size=3, stride=2), 6, 8)
    one = Masks.one_of(blocks, ablation)
    assert (one.height, one.width, one.num_ablations, one.middle) == (6, 8, 1, 0)
    for times in (1, 2):
        assert (one.upsampled(times).masks[0] == blocks.upsampled(times).visible(np.array([ablation]))[0]).all()
        tokens = one.upsampled(times).visible_tokens(2)
        assert tokens[0].tolist() == blocks.upsampled(times).visible_tokens(2)[ablation].tolist()
