"""The tokens that ablations show, against a walk over the pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import Ablation, WindowAblation
from smoothcert.workers.ablations import tokens
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.ablations.tokens import token_groups, visible_pixels
from tests.helpers.ablations import settings_of, shown_by_hand


@settings(max_examples=200)
@given(settings_of((2, 4, 6, 8, 12)), st.sampled_from([1, 2]), st.booleans())
def test_groups_hold_the_tokens_and_pixels_that_ablations_show(
    setting: tuple[Ablation, int, int], token_px: int, keep_hidden: bool
) -> None:
    """Every ablation is in one group, with the tokens that show a pixel (or all) and exactly its pixels in them."""
    _, height, width = setting
    geometry = Geometry.of(*setting)
    groups = token_groups(geometry, token_px, keep_hidden=keep_hidden)
    shown = shown_by_hand(*setting)
    across = width // token_px
    assert sorted(np.concatenate([group.ablations for group in groups])) == list(range(len(shown)))
    counts = [group.tokens.shape[1] for group in groups]
    assert len(set(counts)) == len(counts)
    for group in groups:
        pixels = visible_pixels(geometry, group, token_px)
        for place, position in enumerate(group.ablations):
            tokens = {(y // token_px) * across + x // token_px for y, x in shown[position]}
            expected = range(across * (height // token_px)) if keep_hidden else sorted(tokens)
            assert group.tokens[place].tolist() == list(expected)
            visible = {
                (token // across * token_px + y, token % across * token_px + x)
                for token, mask in zip(group.tokens[place], pixels[place], strict=True)
                for y, x in np.argwhere(mask)
            }
            assert visible == shown[position]


@pytest.mark.parametrize("pixels_at_once", [1, 200])
def test_pixels_of_many_ablations_are_made_in_parts(monkeypatch: pytest.MonkeyPatch, pixels_at_once: int) -> None:
    """However few masks fit at once, the pixels are the same."""
    geometry = Geometry.of(WindowAblation(kind="block", size=3, stride=2), 8, 8)
    [group] = token_groups(geometry, 4, keep_hidden=True)
    together = visible_pixels(geometry, group, 4)
    monkeypatch.setattr(tokens, "_PIXELS_AT_ONCE", pixels_at_once)
    assert (visible_pixels(geometry, group, 4) == together).all()
