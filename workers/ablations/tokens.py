"""Which tokens ablations show, and which pixels of these tokens.

A token is a square tile of the image, the unit in which a Vision Transformer reads it. Ablations of equal token count
make a group: an engine computes them together and pads nothing.

Not covered: which pixels an ablation shows (shown.py and the kinds).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.workers.ablations.shown import Bools, Shown

Ints = NDArray[np.int64]

_PIXELS_AT_ONCE = 1 << 24  # in masks; bounds the memory


class TokenGroup(NamedTuple):
    """Ablations that show equally many tokens.

    Attributes:
        ablations: [G] positions in the order of votes.
        tokens: [G, tokens] token positions, row-major, ascending.
    """

    ablations: Ints
    tokens: Ints


def token_groups(shown: Shown, token_px: int, *, keep_hidden: bool = False) -> list[TokenGroup]:
    """Group ablations by the number of tokens that they show.

    Args:
        shown: the ablations.
        token_px: side of a token; divides height and width.
        keep_hidden: count hidden tokens as shown (their pixels stay hidden).
    """
    kept = shown.visible_tokens(token_px) | keep_hidden
    counts = kept.sum(axis=1)
    groups = []
    for count in np.unique(counts):
        ablations = np.flatnonzero(counts == count)
        groups.append(TokenGroup(ablations, np.nonzero(kept[ablations])[1].reshape(len(ablations), count)))
    return groups


def visible_pixels(shown: Shown, group: TokenGroup, token_px: int) -> Bools:
    """[G, tokens, token_px, token_px]: the visible pixels of each token of a group."""
    visible = np.empty((*group.tokens.shape, token_px, token_px), bool)
    together = max(1, _PIXELS_AT_ONCE // (shown.height * shown.width))
    for start in range(0, len(visible), together):
        part = slice(start, start + together)
        tiles = _tiles(shown.visible(group.ablations[part]), token_px)
        visible[part] = tiles[np.arange(len(tiles))[:, None], group.tokens[part]]
    return visible


def _tiles(masks: Bools, token_px: int) -> Bools:
    """Cut masks [n, height, width] into tokens: [n, tokens, token_px, token_px]."""
    n, height, width = masks.shape
    rows, columns = height // token_px, width // token_px
    tiles = masks.reshape(n, rows, token_px, columns, token_px).swapaxes(2, 3)
    return tiles.reshape(n, rows * columns, token_px, token_px)
