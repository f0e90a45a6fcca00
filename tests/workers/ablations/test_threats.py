"""What every reach promises, whatever it is made of."""

import re
from typing import Any

import numpy as np
import pytest

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.workers.ablations import unions
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Reach, Threat, rectangle
from tests.helpers.ablations import other_kinds


def _reaches(monkeypatch: pytest.MonkeyPatch) -> list[Reach]:
    blocks = ablations_of(WindowAblation(kind="block", size=3, stride=2), 8, 8)
    listed = [blocks.reach(Threat(2, 2, patches)) for patches in (1, 2)]
    monkeypatch.setattr(unions, "MAX_EXACT", 0)
    bound = blocks.reach(Threat(2, 2, 3))
    return [*listed, bound, *(kind.reach(Threat(2, 2)) for kind in other_kinds(8).values())]


def test_sums_and_places_have_the_shapes_that_rules_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum for each image and set; a place for each patch, inside the image where it is not a bound."""
    reaches = _reaches(monkeypatch)
    assert [reach.is_bound for reach in reaches[:3]] == [False, False, True]
    for reach in reaches:
        ones = np.ones((3, reach.num_ablations), np.float32)
        assert reach.sums(ones).shape == (3, reach.num_sets)
        assert (reach.sums(2 * ones) == 2 * reach.sums(ones)).all()
        places = reach.places(np.array([0, reach.num_sets - 1]))
        assert (len(places), places.shape[2]) == (2, 2)
        assert (places == -1).all() if reach.is_bound else ((places >= 0) & (places <= 6)).all()


def test_a_patch_is_a_side_or_height_and_width() -> None:
    """Numbers of NumPy, too."""
    assert [rectangle(patch) for patch in (3, np.int64(3), (2, 5), (np.int32(2), 5))] == [
        (3, 3),
        (3, 3),
        (2, 5),
        (2, 5),
    ]


@pytest.mark.parametrize("patch", [2.0, "2", None, True, (2, 5, 7), (2, 5.5), [[1, 2], [3, 4]]])
def test_any_other_patch_is_refused(patch: Any) -> None:
    """In one line that shows it."""
    says = f"patch {patch!r}: must be the side of a square or (height, width), in whole pixels"
    with pytest.raises(RequestError, match=f"^{re.escape(says)}$"):
        rectangle(patch)
