"""JPEG files like photos. Needs neither ray nor pytest's fixtures, so it runs on a bare machine, too."""

import io
from typing import Any

import numpy as np
from PIL import Image


def photo(width: int = 96, height: int = 64, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth shapes with a little grain."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    grain = random.normal(0, 4, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).convert(mode)


def as_file(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file; `options` of Pillow's save."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    """EXIF data that say so."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
