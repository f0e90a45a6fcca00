"""Bytes of an image file to the uint8 pixels that are certified.

The first frame, as RGB of 8 bits; EXIF orientation is ignored, as in the reference; then Resize and
CenterCrop as torchvision does them on PIL images.

Not covered: normalisation, which comes after pixels are hidden (smoothed_vit.py).
"""

import io
from typing import NamedTuple

import numpy as np
import PIL
import torchvision.transforms.functional as TF
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features
from torchvision.transforms import InterpolationMode

from manifests.errors import ImageError
from manifests.job import Preprocess

MAX_PIXELS = 64 * 1000**2
"""Larger images, before or after the resize, are refused before they are decoded."""

Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; open_image checks ours

Image.init()  # formats load on demand, but Image.open fails on one named before it is loaded
# Formats that Pillow decodes by itself: others, such as EPS, would start programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class DecodedImage(NamedTuple):
    """Width and height before preprocessing, in pixels; pixels [crop, crop, 3] uint8, or the error."""

    width: int | None
    height: int | None
    pixels: NDArray[np.uint8] | None
    error: ImageError | None


def decode(data: bytes, preprocess: Preprocess) -> DecodedImage:
    """Decode and preprocess one image; an image without pixels carries its ImageError instead."""
    width = height = None
    try:
        image = _open(data)
        width, height = image.size
        _check_size(width, height, preprocess)
        return DecodedImage(width, height, _preprocess(_to_rgb(image), preprocess), None)
    except ImageError as error:
        return DecodedImage(width, height, None, error)


def decode_whole(data: bytes) -> Image.Image:
    """The first frame as RGB of 8 bits, neither resized nor cropped.

    Raises:
        ImageError: it cannot be read, or is too large.
    """
    image = _open(data)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_large", f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS}")
    return _to_rgb(image)


def decoder_version() -> str:
    """Name and version of what decodes, recorded with every file of votes."""
    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version_feature('libjpeg_turbo')}"


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise ImageError("decode_error", f"none of the formats {', '.join(_FORMATS)}") from None
    except MemoryError:
        raise  # the machine's trouble, not the image's
    except Exception as error:  # damaged headers raise almost anything, ValueError to struct.error
        raise ImageError("decode_error", _text(error)) from None


def _check_size(width: int, height: int, preprocess: Preprocess) -> None:
    pixels = width * height
    if preprocess.resize is None:
        resized = pixels
        if pixels <= MAX_PIXELS and (width, height) != (preprocess.crop, preprocess.crop):
            expected = f"{preprocess.crop} x {preprocess.crop}"
            raise ImageError(
                "size_error", f"{width} x {height} pixels, expected {expected} (preprocess.resize is null)"
            )
    else:
        short, long = min(width, height), max(width, height)
        resized = preprocess.resize * int(preprocess.resize * long / short)
    if max(pixels, resized) > MAX_PIXELS:
        raise ImageError(
            "too_large", f"{width} x {height} pixels, {max(pixels, resized)} with the resize; the limit is {MAX_PIXELS}"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    try:
        image.load()
        if image.mode in _SIXTEEN_BITS:
            # Pillow would clip these at 255; the high byte is what it takes of 16-bit colour images.
            return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert(
                "RGB"
            )
        if image.mode == "F":
            raise ImageError("decode_error", "floating-point pixels have no 8-bit meaning")
        image.info.pop("transparency", None)  # dropped like any alpha channel
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError) as error:
        raise ImageError("decode_error", _text(error)) from None


def _preprocess(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    if preprocess.resize is not None:
        image = TF.resize(image, preprocess.resize, InterpolationMode(preprocess.interpolation))
        image = TF.center_crop(image, [preprocess.crop, preprocess.crop])
    return np.asarray(image)


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
