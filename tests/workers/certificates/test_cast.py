"""A part of the ablations keeps its own votes and margins, and all that belongs to the images."""

import numpy as np

from smoothcert.workers.certificates.cast import Cast


def test_the_votes_of_some_ablations() -> None:
    votes, margins = np.arange(6).reshape(2, 3), np.arange(6, dtype=np.float32).reshape(2, 3) / 10
    cast = Cast(votes, margins, labels=np.array([1, -1]), clean=np.array([0, 2]))
    part = cast.by(np.array([2, 0]))
    assert part.votes.tolist() == [[2, 0], [5, 3]]
    assert part.margins is not None
    assert (part.margins == margins[:, [2, 0]]).all()
    assert (part.labels, part.clean) == (cast.labels, cast.clean)


def test_margins_may_be_unknown() -> None:
    assert Cast(np.zeros((1, 2), int)).by(np.array([1])).margins is None
