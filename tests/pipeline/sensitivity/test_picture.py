"""The picture shows what was measured, and nothing else."""

import io

import pytest
from PIL import Image

from smoothcert.pipeline.sensitivity.figures import figures_of
from smoothcert.pipeline.sensitivity.picture import picture_of
from tests.helpers.study_rows import sensitivity_rows


@pytest.mark.parametrize(("layers", "tokens", "panels"), [(3, 4, 3), (0, 4, 2), (3, None, 2), (0, None, 1)])
def test_a_panel_for_each_thing_that_is_known(layers, tokens, panels):
    data = picture_of(figures_of(sensitivity_rows(3, layers=layers, tokens=tokens)), "a study")
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.width, image.height) == ("PNG", panels * 780, 630)


def test_the_same_figures_give_the_same_bytes():
    figures = figures_of(sensitivity_rows(2))
    assert picture_of(figures, "a study") == picture_of(figures, "a study")
