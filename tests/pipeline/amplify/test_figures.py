"""Figures of a study of amplification, block by block."""

import pytest

from smoothcert.pipeline.amplify.figures import figures_of
from tests.helpers.study_rows import amplification_rows


def test_figures_are_those_of_each_block():
    """Images have 1 to 101 in the first block, 2 to 102 in the second."""
    figures = figures_of(amplification_rows(101, unreadable=1))
    assert (figures.images, figures.not_measured) == (101, 1)
    first, second = figures.blocks
    assert (first.mean.value, first.band, first.largest, first.exact) == (51, pytest.approx((6, 96)), 101, True)
    assert (second.mean.value, second.largest, second.exact) == (52, 102, False)


def test_a_study_without_measured_images_has_no_figures():
    assert figures_of(amplification_rows(0, unreadable=1)).blocks == ()
