"""Strips have a colour for each class, and are small; pictures have the patch where it is."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from smoothcert.pipeline.pages.drawing import PATCH_PX, PICTURE_PX, patch_parts, picture_parts, strip_of, strip_parts
from smoothcert.pipeline.pages.exhibits import Exhibit
from smoothcert.pipeline.pages.patches import Success
from smoothcert.pipeline.pages.pictures import Box, Picture

RANDOM = np.random.default_rng(0)
BLOCKS = Exhibit(
    shard="s",
    key="k",
    label=0,
    prediction=1,
    largest=2,
    votes=RANDOM.integers(0, 3, 512**2),
    margins=RANDOM.random(512**2).astype(np.float32),
    height=2,
    width=4,
    top=5,
    left=10,
    slack=3,
    becomes=2,
    grid=np.arange(512**2).reshape(512, 512),
)


def columns(votes: list[int], margins: list[float]) -> Exhibit:
    return replace(BLOCKS, votes=np.array(votes), margins=np.array(margins, np.float32), grid=None)


def test_votes_of_very_many_blocks_are_a_small_picture() -> None:
    """A pixel a vote, but no more pixels than a screen shows."""
    strip, square = strip_of(BLOCKS, 1, 2)
    assert (strip.size, square) == ((PICTURE_PX, PICTURE_PX), True)
    few = columns(BLOCKS.votes[:224].tolist(), BLOCKS.margins[:224].tolist())
    assert strip_of(few, 1, 2)[0].size == (224, 1)


def test_a_class_is_a_colour_and_a_margin_its_strength() -> None:
    """Equal classes have equal colours; a vote without margin is faint, but there."""
    strip, _ = strip_of(columns([1, 2, 0, 1], [1.0, 1.0, 1.0, 0.0]), 1, 2)
    pixels = np.asarray(strip)[0]
    assert len({tuple(pixel) for pixel in pixels[:3, :3].tolist()}) == 3
    assert (pixels[0, :3] == pixels[3, :3]).all()
    assert 0 < pixels[3, 3] < pixels[0, 3] == 255


def test_the_text_of_a_strip_counts_its_votes() -> None:
    parts = strip_parts(columns([1, 1, 2, 0, 0, 0], [1.0] * 6), 1, 2, ["cat", "dog"])
    assert parts["strip_alt"] == "votes: 2 for 1 (dog), 1 for 2, 3 for others"


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_patch_lies_on_the_picture(mode: str) -> None:
    """In shares of the picture, whatever its size on the screen."""
    parts = picture_parts(Picture(Image.new(mode, (20, 20)), ""), BLOCKS.box, "an image")
    assert parts["box"] == "left:50.00%;top:25.00%;width:20.00%;height:10.00%"
    assert str(parts["picture"]).startswith("data:image/jpeg;base64,")


def test_without_a_picture_there_is_a_reason() -> None:
    """On one line, of bounded length."""
    parts = picture_parts(Picture(None, "gone\x1b" + "x" * 10_000), BLOCKS.box, "an image")
    assert not parts["picture"]
    assert str(parts["reason"]).startswith(r"gone\x1bxxx")
    assert len(str(parts["reason"])) == 500


@pytest.mark.parametrize("side", [4, 150])
def test_a_patch_is_data_of_bounded_size(side: int) -> None:
    """Pixel by pixel as it is, beside the picture with its place."""
    patch = Image.effect_noise((side, side), 50)
    picture = Picture(Image.new("L", (200, 200)), "")
    success = Success("s", "k", 0, 1, 2, -3, "apgd-ce", Box(20, 0, side, side), patch, picture)
    parts = patch_parts(success, ["cat", "dog", "owl"])
    shown = Image.open(io.BytesIO(base64.b64decode(str(parts["patch"]).removeprefix("data:image/png;base64,"))))
    assert shown.size == (min(side, PATCH_PX),) * 2
    assert side > PATCH_PX or shown.tobytes() == patch.tobytes()
    assert parts["box"] == f"left:0.00%;top:10.00%;width:{side / 2:.2f}%;height:{side / 2:.2f}%"
    assert (parts["alt"], parts["patch_alt"]) == (
        "the image with the patch, predicted as 2 (owl)",
        f"the patch, {side} x {side} pixels",
    )


def test_a_vote_that_was_not_cast_is_blank() -> None:
    """It counts for no class, and its missing margin for nothing."""
    one = columns([1, -1, 2, -1], [1.0, np.nan, 1.0, np.nan])
    strip, _ = strip_of(one, 1, 2)
    assert np.asarray(strip)[0, :, 3].tolist() == [255, 0, 255, 0]
    assert strip_parts(one, 1, None, [])["strip_alt"] == "votes: 1 for 1, 1 for others, 2 not cast"


def test_votes_of_masks_lie_by_the_masks_that_are_hidden() -> None:
    """Row and column are masks; a pair of them is one vote."""
    one = replace(columns([1, 1, 2], [1.0] * 3), grid=np.array([[0, 2], [2, 1]]))
    strip, square = strip_of(one, 1, 2)
    pixels = np.asarray(strip)
    assert square
    assert (pixels[0, 0] == pixels[1, 1]).all()
    assert (pixels[0, 1] == pixels[1, 0]).all()
    assert (pixels[0, 0] != pixels[0, 1]).any()


def test_masks_are_outlined_on_the_picture() -> None:
    parts = picture_parts(Picture(Image.new("RGB", (20, 20)), ""), BLOCKS.box, "", [(Box(0, 5, 10, 15), True)])
    assert parts["masks"] == [("left:25.00%;top:0.00%;width:75.00%;height:50.00%", True)]
