"""The picture of values by depth."""

import io

from PIL import Image

from smoothcert.pipeline.amplify.figures import figures_of
from smoothcert.pipeline.amplify.picture import picture_of
from tests.helpers.study_rows import amplification_rows


def test_the_picture_is_a_png_of_equal_bytes_each_time():
    figures = figures_of(amplification_rows(5))
    data = picture_of(figures, "a study")
    assert Image.open(io.BytesIO(data)).format == "PNG"
    assert picture_of(figures, "a study") == data != picture_of(figures_of(amplification_rows(4)), "a study")
