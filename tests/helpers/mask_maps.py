"""Small mask sets, votes drawn for them, logits that are off a little, and changes that make a rule wrong."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from smoothcert.workers.ablations.masks import Covers
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.rules import Answer
from tests.helpers.masks import Bools, HandMasks, Votes, on_a_grid, on_a_line

# Masks, classes, and the patches that are asked about.
IMAGES = {
    "2 masks": (on_a_line(5, 3, [0, 2], 2), 3, [(1, 2), (1, 1)]),
    "3 masks": (on_a_line(5, 3, [0, 1, 2], 3), 3, [(1, 3), (1, 2), (1, 1)]),
    "3 masks, a gap": (on_a_line(7, 3, [0, 2, 4], 2), 3, [(1, 2), (1, 1)]),
    "4 masks": (on_a_line(7, 4, [0, 1, 2, 3], 4), 3, [(1, 4), (1, 3), (1, 2)]),
    "4 masks on a grid": (on_a_grid(3, 3, 2, [0, 1], 2), 2, [(2, 2), (1, 2), (2, 1), (1, 1)]),
    "4 masks on a larger grid": (on_a_grid(5, 5, 3, [0, 2], 2), 3, [(2, 2), (1, 2)]),
    "5 masks": (on_a_line(8, 4, [0, 1, 2, 3, 4], 4), 2, [(1, 4), (1, 3), (1, 2)]),
    "3 masks, two patches": (on_a_line(4, 2, [0, 1, 2], 2, patches=2), 3, [(1, 2), (1, 1)]),
    "4 masks, two patches": (on_a_line(4, 1, [0, 1, 2, 3], 1, patches=2), 2, [(1, 1)]),
}


def threats_of(image: str) -> list[Threat]:
    masks, _, patches = IMAGES[image]
    return [Threat(*patch, count) for patch in patches for count in range(1, masks.own.patches + 1)]


def hiding(masks: HandMasks, threat: Threat) -> dict[tuple[tuple[int, int], ...], list[int]]:
    """The masks that hide the patches, by place."""
    found = {}
    for places, patches in masks.placed(threat).items():
        touched = masks.touched(patches)
        found[places] = [mask for mask in range(masks.num_masks) if mask not in touched]
    return found


@st.composite
def some_votes(draw: st.DrawFn) -> tuple[HandMasks, Threat, int, Cast]:
    """Votes for three classes of which most agree, some pairs left out, margins near 1, some of them not numbers."""
    image = draw(st.sampled_from(sorted(IMAGES)))
    masks = IMAGES[image][0]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape, agree = (20, masks.num_ablations), random.random((20, 1))
    votes = np.where(random.random(shape) < agree, random.integers(0, 3, (20, 1)), random.integers(0, 3, shape))
    margins = random.choice([0.25, 0.5, 0.75, 1.0, 2.0, np.nan], shape).astype(np.float32)
    skipped = (random.random(shape) < draw(st.sampled_from([0, 0.1]))) & (np.arange(shape[1]) >= masks.num_masks)
    clean_margins = random.choice([0.5, 2.0, np.nan], 20).astype(np.float32)
    cast = Cast(
        np.where(skipped, -1, votes), np.where(skipped, np.nan, margins), None, random.integers(0, 3, 20), clean_margins
    )
    return masks, draw(st.sampled_from(threats_of(image))), 3, cast


def check_slack(answer: Answer, image: int, at: dict[tuple[tuple[int, int], ...], int], *, holds: bool = True) -> None:
    """The slack is the smallest of all places, and the weakest place has it."""
    least = min(at.values()) if holds else min(-1, *at.values())
    assert answer.slack[image] == least
    weakest = tuple(sorted((int(top), int(left)) for top, left in answer.places[image]))
    assert at[weakest] == min(at.values())


def near(logits: NDArray[np.float64], tolerance: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Other logits, each off by less than half the tolerance."""
    changed: NDArray[np.float64] = logits + random.uniform(-0.499, 0.499, logits.shape) * tolerance
    return changed


def top_and_margin(logits: NDArray[np.float64]) -> tuple[Votes, NDArray[np.float32]]:
    top = np.sort(logits, axis=-1)
    return logits.argmax(axis=-1), (top[..., -1] - top[..., -2]).astype(np.float32)


def with_masks(rule: Callable[..., Answer], change: Callable[[Bools], Bools]) -> Callable[..., Answer]:
    """The rule, told of other masks that hide the patch."""
    return lambda ballots, covers, **rest: rule(ballots, Covers(change(covers.sets), covers.places), **rest)


def one_less(sets: Bools) -> Bools:
    """Without one of the masks of each set that has two or more."""
    first = np.arange(sets.shape[1]) == sets.argmax(axis=1)[:, None]
    return sets & ~(first & (sets.sum(axis=1, keepdims=True) > 1))


def one_more(sets: Bools) -> Bools:
    """With a mask that does not hide the patch."""
    return sets | (np.arange(sets.shape[1]) == sets.argmin(axis=1)[:, None])


def with_slack(rule: Callable[..., Answer], change: Callable[[Answer], Votes]) -> Callable[..., Answer]:
    def changed(*votes: object, **rest: object) -> Answer:
        answer = rule(*votes, **rest)
        return answer._replace(slack=change(answer))

    return changed
