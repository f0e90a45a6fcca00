"""Every kind that a job can name has its ablations."""

import pytest

from smoothcert.manifests.ablation import ablation_of
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.ablations.threats import Threat


@pytest.mark.parametrize(("kind", "count"), [("column", 8), ("row", 6), ("block", 48)])
def test_a_kind_has_its_ablations_and_their_sets(kind: str, count: int) -> None:
    """One ablation an offset; a patch of one pixel touches two offsets along each axis that has any."""
    ablations = ablations_of(ablation_of({"kind": kind, "size": 2}), 6, 8)
    assert (ablations.height, ablations.width, ablations.num_ablations) == (6, 8, count)
    reach = ablations.reach(Threat(1, 1))
    assert (reach.num_sets, reach.num_ablations) == (count, count)
    coarse, positions = ablations.coarser(2)
    assert coarse.num_ablations == len(positions)


def test_masks_are_a_kind_of_their_own() -> None:
    """Their ablations are unions of masks, and equal settings give the same object, which knows what it found."""
    ablation = ablation_of({"kind": "mask", "threat": 2, "per_axis": 2})
    masks = ablations_of(ablation, 8, 8)
    assert isinstance(masks, MaskSet)
    assert (masks.height, masks.width, masks.num_ablations) == (8, 8, 10)
    assert ablations_of(ablation, 8, 8) is masks
