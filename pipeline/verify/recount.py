"""Votes counted again: prediction, runner-up, and the largest certified squares by both rules.

The rules are written as docs/certificates.md states them. Let a patch touch the ablations T. n_c counts the votes for
class c, u_c those outside T, and p is the prediction:

    exact rule    at every place, for every rival r: u_p >= u_r + |T| + [r < p]
    margin rule   for every rival r: n_p >= n_r + 2 D + [r < p], where D is the largest |T|

Images are counted together, and nothing is computed that is not needed: a stored square is right if it is certified and
the next larger one is not, because a certificate implies those of all smaller squares.

Not covered: what T is (frame.py); what else a row says (rows.py).
"""

from bisect import bisect_left
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.pipeline.verify.frame import Floats, Frame, most_touched, touched_by

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NUMBERS_AT_ONCE = 2**22
"""Numbers in the largest tables, which hold as many rows as fit."""


@dataclass(frozen=True)
class Recount:
    """What the votes of some images give, [images] each; the names are those of the columns."""

    prediction: Ints
    count: Ints
    runner_up: Ints
    runner_up_count: Ints
    max_certified_patch: Ints
    max_margin_certified_patch: Ints


class _Ballots(NamedTuple):
    """Votes [images, ablations], their counts [images, classes], and the predictions [images]."""

    votes: Ints
    counts: Ints
    prediction: Ints

    def of(self, images: Ints) -> "_Ballots":
        return _Ballots(*(each[images] for each in self))


def recount(frame: Frame, votes: Ints, classes: int, stored_squares: Ints) -> Recount:
    """Count the votes of many images.

    Args:
        frame: the ablations.
        votes: [images, ablations], each from 0 to `classes` - 1.
        classes: K.
        stored_squares: [images], the stored max_certified_patch; any number where it is null.
    """
    step = max(1, NUMBERS_AT_ONCE // max(classes, frame.num_ablations))
    parts = [
        _recount(frame, votes[start : start + step], classes, stored_squares[start : start + step])
        for start in range(0, max(len(votes), 1), step)
    ]
    return Recount(*map(np.concatenate, zip(*map(astuple, parts), strict=True)))


def _recount(frame: Frame, votes: Ints, classes: int, stored_squares: Ints) -> Recount:
    images, numbers = np.arange(len(votes)), np.arange(classes)
    counts = np.bincount((votes + classes * images[:, None]).ravel(), minlength=len(votes) * classes)
    counts = counts.reshape(len(votes), classes)
    prediction = counts.argmax(axis=1)  # the lowest class on a tie
    count = counts[images, prediction]
    rivals = counts.copy()
    rivals[images, prediction] = -1
    runner_up = rivals.argmax(axis=1)
    # The margin rule asks for n_p - (n_r + [r < p]) >= 2 D of every rival: the smallest difference decides.
    lead = count - (rivals + (numbers < prediction[:, None])).max(axis=1)
    return Recount(
        prediction,
        count,
        runner_up,
        counts[images, runner_up],
        _largest_exact(frame, _Ballots(votes, counts, prediction), stored_squares),
        _largest_by_margin(frame, lead),
    )


def _largest_by_margin(frame: Frame, lead: Ints) -> Ints:
    """The side of the largest square with lead >= 2 D; D grows with the side."""
    return np.searchsorted(2 * most_touched(frame), lead, side="right")


def _largest_exact(frame: Frame, ballots: _Ballots, stored: Ints) -> Ints:
    """The side of the largest square that the exact rule certifies, 0 if none."""
    right = (stored >= 0) & (stored <= frame.side)
    for side in np.unique(stored[right]).tolist():
        here = np.flatnonzero(stored == side)
        if side > 0:
            right[here] &= _certify(frame, side, ballots.of(here))
        if side < frame.side:
            right[here] &= ~_certify(frame, side + 1, ballots.of(here))
    largest = stored.copy()
    for image in np.flatnonzero(~right):
        largest[image] = _search_largest(frame, ballots.of(np.array([image])))
    return largest


def _search_largest(frame: Frame, one: _Ballots) -> int:
    """The side of the largest certified square of one image, by bisection."""

    def fails(side: int) -> bool:
        return not _certify(frame, side, one).item()

    return bisect_left(range(1, frame.side + 1), True, key=fails)


def _certify(frame: Frame, patch_px: int, ballots: _Ballots) -> Bools:
    """[images]: whether the exact rule certifies the prediction against squares of `patch_px` pixels."""
    votes, counts, p = ballots
    # spare = u_p - |T|. The rule needs spare >= u_r + [r < p] at every place.
    spare = _untouched(frame, patch_px, votes, counts, np.arange(len(p)), p) - touched_by(frame, patch_px).number
    least = spare.min(axis=(1, 2))
    # u_r >= 0, so with less to spare even a rival without votes wins (class 0, or class 1 if p is 0).
    holds = least >= (p > 0)
    # u_r <= n_r, so a rival with n_r + [r < p] <= least wins at no place.
    dangerous = holds[:, None] & (counts + (np.arange(counts.shape[1]) < p[:, None]) > least[:, None])
    dangerous[np.arange(len(p)), p] = False
    images, rivals = np.nonzero(dangerous)
    step = max(1, NUMBERS_AT_ONCE // max(touched_by(frame, patch_px).number.size, frame.num_ablations))
    for start in range(0, len(images), step):
        image, rival = images[start : start + step], rivals[start : start + step]
        gains = _untouched(frame, patch_px, votes, counts, image, rival) + (rival < p[image])[:, None, None]
        holds[image[(gains > spare[image]).any(axis=(1, 2))]] = False
    return holds


def _untouched(frame: Frame, patch_px: int, votes: Ints, counts: Ints, image: Ints, c: Ints) -> Floats:
    """[pairs, places down, places across]: u_c of each pair of an image and a class c."""
    touched = touched_by(frame, patch_px)
    votes_for_c = (votes[image] == c[:, None]).reshape(-1, *frame.grid).astype(np.float32)
    down = np.tensordot(votes_for_c, touched.down, axes=(1, 1))  # [pairs, horizontal offsets, places down]
    inside: Floats = np.tensordot(down, touched.across, axes=(1, 1))
    return counts[image, c].astype(np.float32)[:, None, None] - inside
