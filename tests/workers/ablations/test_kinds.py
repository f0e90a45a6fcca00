"""Every kind that a job can name is in the tables, once."""

from typing import get_args

import pytest

from smoothcert.manifests.job import Ablation
from smoothcert.workers.ablations import kinds
from smoothcert.workers.ablations.kinds import Ablations, ablations_of
from smoothcert.workers.ablations.threats import Threat
from tests.helpers.ablations import HiddenRectangles

_NAMES = get_args(Ablation.model_fields["kind"].annotation)


def test_every_kind_of_the_job_file_is_built() -> None:
    """The table has the names that a job file accepts, and no others."""
    assert tuple(kinds._KINDS) == _NAMES


@pytest.mark.parametrize(("kind", "count"), [("column", 8), ("row", 6), ("block", 48)])
def test_a_kind_has_its_ablations_and_their_sets(kind: str, count: int) -> None:
    """One ablation an offset; a patch of one pixel touches two offsets along each axis that has any."""
    ablations = ablations_of(Ablation.model_validate({"kind": kind, "size": 2}), 6, 8)
    assert (ablations.height, ablations.width, ablations.num_ablations) == (6, 8, count)
    reach = ablations.reach(Threat(1, 1))
    assert (reach.num_sets, reach.num_ablations) == (count, count)
    coarse, positions = ablations.coarser(2)
    assert coarse.num_ablations == len(positions)


def test_a_kind_may_be_of_another_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table takes any function that makes Ablations, so a kind need not be rows times columns."""

    def hidden(ablation: Ablation, height: int, _width: int) -> Ablations:
        return HiddenRectangles.of(height, ablation.size, ablation.stride)

    monkeypatch.setitem(kinds._KINDS, "block", hidden)
    made = ablations_of(Ablation.model_validate({"kind": "block", "size": 2, "stride": 4}), 8, 8)
    assert isinstance(made, HiddenRectangles)
    assert made.num_ablations == 4
