"""What a replay proves, against every possible choice of images and against exact fractions."""

import math
from fractions import Fraction
from itertools import combinations

import pytest

from smoothcert.pipeline.verify.evidence import Evidence, chance_to_find, evidence_of, fewest_found


@pytest.mark.parametrize("images", range(1, 8))
def test_the_chance_is_the_share_of_choices_with_a_forged_image(images: int) -> None:
    """Oracle: all choices, with images 0 to `forged` - 1 forged."""
    for replayed in range(1, images + 1):
        choices = list(combinations(range(images), replayed))
        shares = [sum(min(choice) < forged for choice in choices) / len(choices) for forged in range(images + 1)]
        assert [chance_to_find(forged, replayed, images) for forged in range(images + 1)] == pytest.approx(shares)
        assert fewest_found(replayed, images) == next(k for k, share in enumerate(shares) if share >= 0.95 - 1e-9)


def _exact(forged: int, replayed: int, images: int) -> Fraction:
    """By counting choices with whole numbers."""
    return 1 - Fraction(math.comb(images - forged, replayed), math.comb(images, replayed))


@pytest.mark.parametrize(
    ("replayed", "images"),
    [(100, 50_000), (500, 50_000), (1000, 1_281_167), (49_999, 50_000), (1, 50_000), (300, 300)],
)
def test_large_runs_have_the_exact_chance(replayed: int, images: int) -> None:
    """Oracle: exact fractions. One forged image fewer is found with less than 95 %."""
    for forged in (1, math.ceil(images / 100), images):
        assert chance_to_find(forged, replayed, images) == pytest.approx(
            float(_exact(forged, replayed, images)), abs=1e-8
        )
    fewest = fewest_found(replayed, images)
    assert _exact(fewest, replayed, images) >= Fraction(95, 100) > _exact(fewest - 1, replayed, images)


def test_a_replay_of_500_finds_one_percent() -> None:
    """The figures of docs/operations.md."""
    assert evidence_of(images=50_000, chosen=500, replayed=500, seed=7) == Evidence(
        images=50_000,
        chosen=500,
        replayed=500,
        seed=7,
        one_percent=500,
        found_one_percent=pytest.approx(float(_exact(500, 500, 50_000)), abs=1e-9),
        fewest_found_95=298,
    )


@pytest.mark.parametrize(("images", "chosen", "replayed"), [(0, 0, 0), (9, 5, 0), (9, 5, 4)])
def test_an_incomplete_replay_proves_nothing(images: int, chosen: int, replayed: int) -> None:
    """The images that could be voted on again are no random choice."""
    assert evidence_of(images=images, chosen=chosen, replayed=replayed, seed=1) == Evidence(
        images, chosen, replayed, 1, one_percent=None, found_one_percent=None, fewest_found_95=None
    )
