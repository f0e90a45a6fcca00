"""Pictures with a patch on them, and strips of votes, as data within a page.

Not covered: curves and maps (report/plots.py).
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from smoothcert.pipeline.pages.class_names import name_of
from smoothcert.pipeline.pages.exhibits import Exhibit
from smoothcert.pipeline.pages.patches import Success
from smoothcert.pipeline.pages.pictures import Box, Picture
from smoothcert.pipeline.pages.rendering import short
from smoothcert.workers.runs.votes_table import ABSENT

PICTURE_PX = 224
STRIP_PX = 1000
PATCH_PX = 96
"""Widths in pixels, at most: of pictures and squares of votes, of strips of votes, of patches."""
_PREDICTED, _OTHER, _REST = (47, 127, 214), (194, 98, 10), (138, 138, 138)  # the page's CSS names them, too
_FAINT = 0.25  # opacity of a vote without margin


def picture_parts(picture: Picture, patch: Box, alt: str, masks: Sequence[tuple[Box, bool]] = ()) -> dict[str, Any]:
    """The picture as data, the place of the patch on it as CSS, and its text; or the reason why there is none.

    Args:
        picture: to show.
        patch: where it lies.
        alt: the text.
        masks: rectangles to outline, each with whether it is uniform.
    """
    image = picture.image
    if image is None:
        return {"picture": "", "box": "", "masks": [], "alt": "", "reason": short(picture.reason)}
    smaller = image.convert("RGB")
    smaller.thumbnail((PICTURE_PX, PICTURE_PX))
    return {
        "picture": _data_url(smaller, "JPEG", quality=80, subsampling=0),
        "box": _css_of(patch, image),
        "masks": [(_css_of(box, image), is_uniform) for box, is_uniform in masks],
        "alt": alt,
        "reason": "",
    }


def _css_of(box: Box, image: Image.Image) -> str:
    shares = {
        "left": box.left / image.width,
        "top": box.top / image.height,
        "width": box.width / image.width,
        "height": box.height / image.height,
    }
    return ";".join(f"{side}:{100 * share:.2f}%" for side, share in shares.items())


def patch_parts(success: Success, names: Sequence[str]) -> dict[str, Any]:
    """The image with the patch on it, and the patch alone, as data."""
    after = name_of(success.becomes, names)
    patch = success.patch.copy()
    patch.thumbnail((PATCH_PX, PATCH_PX))
    return {
        **picture_parts(success.picture, success.box, f"the image with the patch, predicted as {after}"),
        "patch": _data_url(patch, "PNG"),
        "patch_alt": f"the patch, {success.box.height} x {success.box.width} pixels",
    }


def strip_parts(exhibit: Exhibit, predicted: int, other: int | None, names: Sequence[str]) -> dict[str, str | bool]:
    """The votes as data: those for one class blue, those for another orange; their numbers as text."""
    strip, square = strip_of(exhibit, predicted, other)
    classes = [predicted] if other is None else [predicted, other]
    counts = {number: int((exhibit.votes == number).sum()) for number in classes}
    parts = [f"{count:,} for {name_of(number, names)}" for number, count in counts.items()]
    cast = int((exhibit.votes != ABSENT).sum())
    not_cast = f", {len(exhibit.votes) - cast:,} not cast" if cast < len(exhibit.votes) else ""
    alt = f"votes: {', '.join(parts)}, {cast - sum(counts.values()):,} for others{not_cast}"
    return {"strip": _data_url(strip, "PNG"), "square": square, "strip_alt": alt}


def strip_of(exhibit: Exhibit, predicted: int, other: int | None) -> tuple[Image.Image, bool]:
    """A pixel per vote: class as colour, margin as opacity; none where no vote was cast. They lie in the grid of the
    exhibit, or in a row in the order of the offsets.
    """
    votes, margins = exhibit.votes, np.nan_to_num(exhibit.margins)
    colours = np.full((len(votes), 4), (*_REST, 255), np.float64)
    if other is not None:
        colours[votes == other, :3] = _OTHER
    colours[votes == predicted, :3] = _PREDICTED
    usual = float(np.quantile(margins[votes != ABSENT], 0.9)) or 1.0
    colours[:, 3] = 255 * (_FAINT + (1 - _FAINT) * np.clip(margins / usual, 0, 1))
    colours[votes == ABSENT, 3] = 0
    square = exhibit.grid is not None
    pixels = colours[None] if exhibit.grid is None else colours[exhibit.grid]
    strip = Image.fromarray(pixels.round().astype(np.uint8), "RGBA")
    strip.thumbnail((PICTURE_PX, PICTURE_PX) if square else (STRIP_PX, 1))
    return strip, square


def _data_url(image: Image.Image, kind: str, **options: int) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
