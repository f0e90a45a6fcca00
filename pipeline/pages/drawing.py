"""Pictures with a patch on them, and strips of votes, as data within a page.

Not covered: curves and maps (report/plots.py).
"""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from smoothcert.pipeline.pages.class_names import name_of
from smoothcert.pipeline.pages.exhibits import Exhibit
from smoothcert.pipeline.pages.patches import Success
from smoothcert.pipeline.pages.pictures import Box, Picture
from smoothcert.pipeline.pages.rendering import short

PICTURE_PX = 224
STRIP_PX = 1000
PATCH_PX = 96
"""Widths in pixels, at most: of pictures and squares of votes, of strips of votes, of patches."""
_PREDICTED, _OTHER, _REST = (47, 127, 214), (194, 98, 10), (138, 138, 138)  # the page's CSS names them, too
_FAINT = 0.25  # opacity of a vote without margin


def picture_parts(picture: Picture, patch: Box, alt: str) -> dict[str, str | bool]:
    """The picture as data, the place of the patch on it as CSS, and its text; or the reason why there is none."""
    image = picture.image
    if image is None:
        return {"picture": "", "box": "", "alt": "", "reason": short(picture.reason)}
    box = {
        "left": patch.left / image.width,
        "top": patch.top / image.height,
        "width": patch.width / image.width,
        "height": patch.height / image.height,
    }
    smaller = image.convert("RGB")
    smaller.thumbnail((PICTURE_PX, PICTURE_PX))
    return {
        "picture": _data_url(smaller, "JPEG", quality=80, subsampling=0),
        "box": ";".join(f"{side}:{100 * share:.2f}%" for side, share in box.items()),
        "alt": alt,
        "reason": "",
    }


def patch_parts(success: Success, names: Sequence[str]) -> dict[str, str | bool]:
    """The image with the patch on it, and the patch alone, as data."""
    after = name_of(success.becomes, names)
    patch = success.patch.copy()
    patch.thumbnail((PATCH_PX, PATCH_PX))
    return {
        **picture_parts(success.picture, success.box, f"the image with the patch, predicted as {after}"),
        "patch": _data_url(patch, "PNG"),
        "patch_alt": f"the patch, {success.box.height} x {success.box.width} pixels",
    }


def strip_parts(exhibit: Exhibit, predicted: int, other: int, names: Sequence[str]) -> dict[str, str | bool]:
    """The votes as data: those for one class blue, those for another orange; their numbers as text."""
    strip, square = strip_of(exhibit, predicted, other)
    counts = {number: int((exhibit.votes == number).sum()) for number in (predicted, other)}
    parts = [f"{count:,} for {name_of(number, names)}" for number, count in counts.items()]
    alt = f"votes: {', '.join(parts)}, {len(exhibit.votes) - sum(counts.values()):,} for others"
    return {"strip": _data_url(strip, "PNG"), "square": square, "strip_alt": alt}


def strip_of(exhibit: Exhibit, predicted: int, other: int) -> tuple[Image.Image, bool]:
    """A pixel per vote, in the order of the offsets: class as colour, margin as opacity. Blocks make a square."""
    votes, margins = exhibit.votes, exhibit.margins
    colours = np.full((len(votes), 4), (*_REST, 255), np.float64)
    colours[votes == other, :3] = _OTHER
    colours[votes == predicted, :3] = _PREDICTED
    usual = float(np.quantile(margins, 0.9)) or 1.0
    colours[:, 3] = 255 * (_FAINT + (1 - _FAINT) * np.clip(margins / usual, 0, 1))
    side = math.isqrt(len(colours))
    square = exhibit.is_grid and side * side == len(colours)
    shape = (side, side, 4) if square else (1, len(colours), 4)
    strip = Image.fromarray(colours.round().astype(np.uint8).reshape(shape), "RGBA")
    strip.thumbnail((PICTURE_PX, PICTURE_PX) if square else (STRIP_PX, 1))
    return strip, square


def _data_url(image: Image.Image, kind: str, **options: int) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
