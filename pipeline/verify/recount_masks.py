"""Votes of double masking counted again: the prediction and the certificates that are stored.

The rules are written as docs/certificates.md states them. The row of a mask is the votes that hide it, alone or with
one more mask; it is uniform if all of them are for one class.

    prediction           the class for which most masks vote; or, if masks differ, the class of the first mask in order
                         that votes for another class and has a uniform row
    recovery_certified   in every covering set a mask has a uniform row of the prediction
    recovery_published   all votes are for one class
    detection_certified  all masks vote for the class of the whole image

A vote may be null only with an early exit, and only if it hides two masks. Then each row that it belongs to must hold
another vote that was cast and differs from the class of the row's mask alone: the row cannot be uniform, whatever the
missing vote is.

Not covered: which masks there are, and what covers (masks.py); what else a row says (rows.py).
"""

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.pipeline.verify.masks import Masks

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ABSENT = -1
"""The class of a vote that was not cast, and of an image whose class is unknown."""
NUMBERS_AT_ONCE = 2**22
"""Numbers in the largest tables, which hold as many rows as fit."""


@dataclass(frozen=True)
class MaskRecount:
    """What the votes of some images give, [images] each; the names are those of the columns.

    Attributes:
        detection_certified: false where the class of the whole image is unknown.
    """

    prediction: Ints
    recovery_certified: Bools
    recovery_published: Bools
    detection_certified: Bools


def recount_masks(masks: Masks, votes: Ints, clean: Ints) -> MaskRecount:
    """Count the votes of many images.

    Args:
        masks: that voted.
        votes: [images, ablations].
        clean: [images], the class of each whole image.
    """
    parts = [_recount(masks, votes[part], clean[part]) for part in _parts(masks, len(votes))]
    return MaskRecount(*map(np.concatenate, zip(*map(astuple, parts), strict=True)))


def missing(masks: Masks, votes: Ints) -> Bools:
    """[images, ablations]: where a vote is null that may not be; arguments as for `recount_masks`."""
    if not masks.early_exit:
        return votes == ABSENT
    found = np.zeros(votes.shape, bool)
    found[:, : masks.num_masks] = votes[:, : masks.num_masks] == ABSENT
    some = np.flatnonzero((votes == ABSENT).any(axis=1))
    for part in _parts(masks, len(some)):
        images = some[part]
        rows, own = votes[images][:, masks.unions], votes[images, : masks.num_masks]
        closed = ((rows != own[:, :, None]) & (rows != ABSENT)).any(axis=2)
        image, one, other = np.nonzero((rows == ABSENT) & ~closed[:, :, None])
        found[images[image], masks.unions[one, other]] = True
    return found


def _parts(masks: Masks, images: int) -> list[slice]:
    step = max(1, NUMBERS_AT_ONCE // masks.num_masks**2)
    return [slice(start, start + step) for start in range(0, max(images, 1), step)]


def _recount(masks: Masks, votes: Ints, clean: Ints) -> MaskRecount:
    images = np.arange(len(votes))
    own = votes[:, : masks.num_masks]
    uniform = (votes[:, masks.unions] == own[:, :, None]).all(axis=2)
    popularity = (own[:, :, None] == own[:, None, :]).sum(axis=2)
    is_largest = popularity == popularity.max(axis=1)[:, None]
    majority = np.where(is_largest, own, np.iinfo(own.dtype).max).min(axis=1)  # the lowest class on a tie
    wins = uniform & (own != majority[:, None])
    first = wins.argmax(axis=1)
    prediction = np.where(wins.any(axis=1), own[images, first], majority)
    holds = uniform & (own == prediction[:, None])
    hits = holds.astype(np.float32) @ masks.covering.T.astype(np.float32)
    return MaskRecount(
        prediction,
        (hits > 0).all(axis=1),
        (votes == votes[:, :1]).all(axis=1) & (votes[:, 0] != ABSENT),
        (own == clean[:, None]).all(axis=1) & (clean != ABSENT),
    )
