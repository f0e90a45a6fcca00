"""Certificates of rows: from the columns for squares, from the votes otherwise; of masks as by hand."""

from pathlib import Path

import numpy as np
import pytest

from smoothcert.manifests.rules import Claim, RuleName
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.run import open_run
from tests.helpers.masked_runs import KINDS, ByHand, masked_run, row_list, rows_of


@pytest.mark.parametrize("rule", [RuleName.exact, RuleName.margin])
@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_stored_columns_and_votes_certify_the_same_squares(any_run: Path, rule: RuleName, side: int) -> None:
    rows = rows_of(open_run(str(any_run)))
    expected = np.zeros(len(rows.table), bool)
    expected[rows.voted] = rows.answer(Threat(side, side), Claim(rule=rule)).certified
    assert (rows.certified(Threat(side, side), Claim(rule=rule)) == expected).all()
    assert ((rows.largest_squares[rule] >= side) == expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_masks_certify_what_they_do_by_hand(tmp_path: Path, kind: str) -> None:
    """Squares and rectangles; images without votes are not certified."""
    run = masked_run(tmp_path, KINDS[kind], count=15)
    rows, judged, hand = rows_of(run), row_list(run), ByHand(KINDS[kind])
    sides = range(1, rows.rules.longest_square + 1)
    for threat in [*(Threat(side, side) for side in sides), Threat(1, 2), Threat(2, 1)]:
        recovered = [hand.recovers(row, threat) for row in judged]
        assert rows.certified(threat).tolist() == recovered
        assert 0 < sum(recovered) < len(judged)
        if threat.height == threat.width:
            assert (rows.largest_squares[RuleName.exact] >= threat.height).tolist() == recovered
            noticed = [hand.detects(row, threat) for row in judged]
            assert (rows.largest_noticed >= threat.height).tolist() == noticed
    agree = [hand.all_agree(row) for row in judged]
    assert (rows.largest_squares[RuleName.published] == np.where(agree, max(sides), 0)).all()
