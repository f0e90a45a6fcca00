"""Figures of a study of sensitivity are means over the images that were measured."""

import numpy as np
import pytest

from smoothcert.pipeline.sensitivity.figures import WAYS, figures_of
from smoothcert.workers.studies import sensitivity
from tests.helpers.study_rows import sensitivity_rows


def test_figures_are_means_with_standard_errors():
    """Three images change in 0, 10 and 20 % of their draws."""
    figures = figures_of(sensitivity_rows(3, unreadable=2))
    assert (figures.images, figures.not_measured) == (3, 2)
    assert figures.ways["occluded"].changed == pytest.approx((0.1, 0.1 / 3**0.5))
    assert figures.ways["hidden"].margin_change == pytest.approx((3.0, 1 / 3**0.5))
    assert figures.ways["corrupted"].drift is not None
    assert [layer.value for layer in figures.ways["corrupted"].drift] == pytest.approx([0.01, 0.02, 0.03])
    assert figures.tokens is not None
    np.testing.assert_allclose(figures.tokens, [[1, 2], [3, 4]])


def test_what_was_not_measured_is_none():
    figures = figures_of(sensitivity_rows(1, layers=0, tokens=None))
    assert figures.ways["occluded"].drift is None
    assert figures.ways["occluded"].changed.standard_error is None
    assert figures.tokens is None


def test_a_study_without_measured_images_has_no_figures():
    figures = figures_of(sensitivity_rows(0, unreadable=2))
    assert (figures.images, figures.not_measured, figures.ways) == (0, 2, {})


def test_ways_are_those_that_are_measured():
    assert WAYS == sensitivity.WAYS
