"""Masks: which pixels the ablations of kind `mask` hide, and which masks hide a patch.

    mask          hides a rectangle; wherever a patch of the threat lies, at least one mask of the set hides it whole
    ablation      hides the union of up to two masks (of up to four against two patches) and shows the rest

    positions of three masks of 4 along 8 pixels, against patches of 2 pixels:
                  0 1 2 3 4 5 6 7
                  = = = =                 a patch at 0, 1 or 2 lies inside
                      = = = =             at 2, 3 or 4
                          = = = =         at 4, 5 or 6

Votes are in this order: each mask alone, in row-major order of the rectangles, then all pairs, triples and fours in
lexicographic order. Against two patches, a mask of the algorithm is a union of one or two rectangles.

Whether a mask hides a patch is counted from the pixels. So the same votes answer for every rectangle that some mask
hides wherever it lies: for all that are smaller than the threat, and sometimes for a larger one.

Not covered: what the votes mean (certificates/double_masking.py).
Source: Xiang, Mahloujifar & Mittal 2022, arXiv:2108.09135 (PatchCleanser).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, combinations
from math import comb
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Area, Fill, MaskAblation, Size, threat_in_words
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations.shown import Array, Bools
from smoothcert.workers.ablations.threats import Ints, Threat

MAX_VOTES = 1 << 14
"""Votes of an image at most; 6 masks along each axis take 666."""
_PIXELS_AT_ONCE = 1 << 24  # in masks; bounds the memory


class Covers(NamedTuple):
    """Which masks hide a threat, at every place of the patches.

    A set that holds another one is left out: where the smaller one is enough for a certificate, the larger one is, too.

    Attributes:
        sets: [sets, masks], the masks that hide all patches at a place; never empty.
        places: [sets, patches, 2], top and left pixel of patches at such a place.
    """

    sets: Bools
    places: Ints


@dataclass(frozen=True, eq=False)
class MaskSet:
    """The ablations of a mask set. `Shown` explains the other properties and methods.

    Attributes:
        rows: [rectangles, height], the pixel rows that each rectangle hides.
        columns: [rectangles, width], likewise the pixel columns.
        members: [ablations, most], the rectangles of each ablation; where there are fewer, the last one is repeated.
        num_masks: how many ablations are masks of the algorithm; they come first.
        threats: against which the set was made.
        made_for: these in words, as the job has them.
        fill: what hidden pixels become.
    """

    rows: Bools
    columns: Bools
    members: Ints
    num_masks: int
    threats: tuple[Threat, ...]
    made_for: str
    fill: Fill

    @classmethod
    def of(cls, ablation: MaskAblation, height: int, width: int) -> Self:
        """The ablations of a job.

        Args:
            ablation: threat, masks per axis and fill.
            height, width: of the image after the crop, in pixels.
        Raises:
            RequestError: the threat is larger than the image, an ablation shows nothing, or there are too many.
        """
        shapes, patches = _shapes(ablation, height, width), ablation.threat_patches
        rectangles = dict.fromkeys(chain.from_iterable(_rectangles(ablation, *each, height, width) for each in shapes))
        votes = sum(comb(len(rectangles), size) for size in range(1, 2 * patches + 1))
        if votes > MAX_VOTES:
            raise RequestError(
                f"ablation.per_axis: {ablation.per_axis} makes {len(rectangles)} masks and {votes:,} votes an image; "
                f"at most {MAX_VOTES:,} are allowed, so use fewer masks"
            )
        spans = np.array([*rectangles])  # [rectangles, (top, bottom, left, right)]
        masks = cls(
            _between(spans[:, 0], spans[:, 1], height),
            _between(spans[:, 2], spans[:, 3], width),
            _subsets(len(rectangles), 2 * patches),
            sum(comb(len(rectangles), size) for size in range(1, patches + 1)),
            _threats(ablation, height, width),
            ablation.threat_text,
            ablation.fill,
        )
        if masks._some_hides_all():
            raise RequestError(
                f"ablation.per_axis: {ablation.per_axis} makes masks that hide the whole image, alone or together; use "
                "more masks, which are smaller, or a smaller threat"
            )
        masks.own_covers()  # checks that a mask hides the threat wherever it lies
        return masks

    @property
    def height(self) -> int:
        return self.rows.shape[1]

    @property
    def width(self) -> int:
        return self.columns.shape[1]

    @property
    def num_ablations(self) -> int:
        return len(self.members)

    @property
    def middle(self) -> int:
        return len(self.members) // 2

    @property
    def tables(self) -> tuple[Array, ...]:
        return self.rows, self.columns, self.members

    @cached_property
    def unions(self) -> Ints:
        """[masks, masks]: the position of the vote in which both masks are hidden; of one mask, its own."""
        position = {frozenset(members): number for number, members in enumerate(self.members.tolist())}
        masks = [frozenset(members) for members in self.members[: self.num_masks].tolist()]
        return np.array([[position[one | other] for other in masks] for one in masks])

    def visible(self, ablations: Array, tables: Sequence[Array] | None = None) -> Array:
        rows, columns, members = tables or self.tables
        rectangles = members[ablations]  # [n, most]
        return ~(rows[rectangles][:, :, :, None] & columns[rectangles][:, :, None, :]).any(1)

    def visible_tokens(self, token_px: int) -> Bools:
        tall, wide = self.height // token_px, self.width // token_px
        tiles = (part.reshape(-1, tall, token_px, wide, token_px).any(axis=(2, 4)) for part in self._all_visible())
        return np.concatenate([*tiles]).reshape(self.num_ablations, -1)

    def upsampled(self, times: int) -> Self:
        return type(self)(
            self.rows.repeat(times, axis=1),
            self.columns.repeat(times, axis=1),
            self.members,
            self.num_masks,
            tuple(Threat(one.height * times, one.width * times, one.patches) for one in self.threats),
            self.made_for,
            self.fill,
        )

    def coarser(self, times: int) -> tuple[Self, Ints]:
        """These masks and the positions of their votes; `times` is 1, because a coarser set would hide no patch."""
        if times != 1:
            raise ValueError("masks have no stride")
        return self, np.arange(self.num_ablations)

    def touched_at(self, height: int, width: int, top: int, left: int) -> Bools:
        """[ablations]: which ablations show a pixel of a rectangle at one place."""
        rows, columns = self.rows[:, top : top + height], self.columns[:, left : left + width]
        touched: Bools = self.visible(np.arange(self.num_ablations), (rows, columns, self.members)).any(axis=(1, 2))
        return touched

    def hiding(self, height: int, width: int) -> Bools:
        """[places, masks]: which masks hide a patch whole, for each of its places in row-major order.

        Args:
            height, width: of the patch, in pixels.
        Raises:
            RequestError: the patch is larger than the image.
        """
        if not (1 <= height <= self.height and 1 <= width <= self.width):
            raise RequestError(f"patch {height} x {width}: must be 1 x 1 to {self.height} x {self.width}, the image")
        before = self._shown_before
        tops, lefts = self.height - height + 1, self.width - width + 1
        below, above = before[:, height:], before[:, :tops]  # summed from the first row on
        inside = below[:, :, width:] - above[:, :, width:] - below[:, :, :lefts] + above[:, :, :lefts]
        hidden: Bools = (inside == 0).reshape(self.num_masks, -1).T
        return hidden

    @cached_property
    def _shown_before(self) -> NDArray[np.int32]:
        """[masks, height + 1, width + 1]: how many pixels each mask shows above a row and left of a column."""
        before = np.zeros((self.num_masks, self.height + 1, self.width + 1), np.int32)
        before[:, 1:, 1:] = self.visible(np.arange(self.num_masks)).cumsum(axis=1, dtype=np.int32).cumsum(axis=2)
        return before

    def covers(self, *threats: Threat) -> Covers:
        """The sets of masks that hide one of the threats at its places.

        Raises:
            RequestError: at some place no mask hides the patches, or a patch is larger than the image.
        """
        return _covers(self, threats)

    def own_covers(self) -> Covers:
        """The sets of masks that hide what the set was made against."""
        return self.covers(*self.threats)

    def first_pixels(self) -> Ints:
        """[ablations, 2]: top and left pixel of the first rectangle that each hides."""
        first = self.members[:, 0]
        return np.stack([self.rows.argmax(axis=1)[first], self.columns.argmax(axis=1)[first]], axis=1)

    def refuse(self, threat: Threat) -> None:
        """Refuse patches for which the votes have no answer; errors as for `covers`."""
        self.covers(threat)

    def _some_hides_all(self) -> bool:
        """Whether some ablation shows no pixel; rows and columns that are alike for all rectangles count once."""
        rows, columns = np.unique(self.rows, axis=1), np.unique(self.columns, axis=1)
        alike = type(self)(rows, columns, self.members, self.num_masks, self.threats, self.made_for, self.fill)
        return not all(part.any(axis=(1, 2)).all() for part in alike._all_visible())

    def _all_visible(self) -> Iterator[Bools]:
        """[some ablations, height, width] each: the pixels that all ablations show, in order."""
        together = max(1, _PIXELS_AT_ONCE // (self.height * self.width))
        for start in range(0, self.num_ablations, together):
            yield self.visible(np.arange(start, min(start + together, self.num_ablations)))


def mask_positions(side: int, patch: int, per_axis: int) -> tuple[list[int], int]:
    """First pixels of the masks along one axis, and their length.

    Args:
        side: of the image, in pixels.
        patch: of the patch, at most the image's.
        per_axis: the number of masks; it can be fewer.
    """
    stride = -(-(side - patch + 1) // per_axis)
    length = min(patch + stride - 1, side)
    return sorted({*range(0, side - length + 1, stride), side - length}), length


def rectangles_of_area(pixels: int, height: int, width: int) -> list[Size]:
    """A few rectangles such that each rectangle of up to `pixels` pixels inside the image fits into one of them.

    None of them has more than twice as many pixels.
    """
    tallest, first, found = min(height, pixels), 1, list[Size]()
    while first <= tallest:
        wide = min(width, pixels // first)
        tall = min(tallest, max(first, 2 * pixels // wide))
        found.append((tall, wide))
        first = tall + 1
    return found


def _shapes(ablation: MaskAblation, height: int, width: int) -> list[Size]:
    """The rectangles for which there are masks."""
    if isinstance(ablation.threat, Area):
        return rectangles_of_area(ablation.threat.pixels, height, width)
    tall, wide = ablation.threat
    if tall > height or wide > width:
        raise RequestError(f"ablation.threat: {tall} x {wide} is larger than the image, {height} x {width}")
    return [(tall, wide)]


def _threats(ablation: MaskAblation, height: int, width: int) -> tuple[Threat, ...]:
    """The largest patches against which a job certifies: of an area, the widest rectangle of each height."""
    if not isinstance(ablation.threat, Area):
        return (Threat(*ablation.threat, ablation.threat_patches),)
    pixels = ablation.threat.pixels
    widest = {min(width, pixels // tall): tall for tall in range(1, min(height, pixels) + 1)}  # the tallest of a width
    return tuple(Threat(tall, wide) for wide, tall in widest.items())


def _rectangles(
    ablation: MaskAblation, tall: int, wide: int, height: int, width: int
) -> Iterator[tuple[int, int, int, int]]:
    """Top, bottom, left and right of each mask against one rectangle, in row-major order."""
    tops, mask_height = mask_positions(height, tall, ablation.per_axis)
    lefts, mask_width = mask_positions(width, wide, ablation.per_axis)
    for top in tops:
        for left in lefts:
            yield top, top + mask_height, left, left + mask_width


def _between(first: Ints, end: Ints, side: int) -> Bools:
    """[n, side]: true from each first pixel to before its end."""
    pixels = np.arange(side)
    between: Bools = (pixels >= first[:, None]) & (pixels < end[:, None])
    return between


def _subsets(number: int, most: int) -> Ints:
    """[subsets, most]: all subsets of 1 to `most` numbers, by size, then lexicographic; the last member is repeated."""
    subsets = chain.from_iterable(combinations(range(number), size) for size in range(1, most + 1))
    return np.array([subset + subset[-1:] * (most - len(subset)) for subset in subsets])


@lru_cache(maxsize=256)
def _covers(masks: MaskSet, threats: tuple[Threat, ...]) -> Covers:
    found = [_covers_of_one(masks, threat) for threat in threats]
    if len(found) == 1:
        return found[0]
    return _smallest(np.concatenate([each.sets for each in found]), np.concatenate([each.places for each in found]))


def _covers_of_one(masks: MaskSet, threat: Threat) -> Covers:
    hiding = masks.hiding(threat.height, threat.width)
    top, left = np.divmod(np.arange(len(hiding)), masks.width - threat.width + 1)
    one = _smallest(hiding, np.stack([top, left], axis=1)[:, None])
    together = one
    for _ in range(threat.patches - 1):
        sets = (together.sets[:, None] & one.sets[None]).reshape(-1, masks.num_masks)
        first, second = np.divmod(np.arange(len(sets)), len(one.sets))
        together = _smallest(sets, np.concatenate([together.places[first], one.places[second]], axis=1))
        if not together.sets.any(axis=1).all():
            break
    exposed = np.flatnonzero(~together.sets.any(axis=1))
    if len(exposed):
        where = " and ".join(f"({top}, {left})" for top, left in together.places[exposed[0]].tolist())
        words = threat_in_words(threat[:2], threat.patches)
        what, them = (f"patch {words}", "it") if threat.patches == 1 else (words, "them")
        raise RequestError(
            f"{what}: no mask hides {them} at {where} (top, left); the masks were made for {masks.made_for}, so ask "
            "for a smaller patch, or certify with a larger ablation.threat"
        )
    return together


def _smallest(sets: Bools, places: Ints) -> Covers:
    """The sets that hold no other one; of equal ones, the first."""
    packed = np.ascontiguousarray(np.packbits(sets, axis=1))
    _, first = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_index=True)
    numbers = sets[first].astype(np.float32)
    holds = numbers @ numbers.T == numbers.sum(axis=1)[None, :]  # [i, j]: i holds j
    np.fill_diagonal(holds, val=False)
    kept = np.sort(first[~holds.any(axis=1)])
    return Covers(sets[kept], places[kept])
