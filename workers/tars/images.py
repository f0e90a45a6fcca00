"""From the bytes of an image file to the uint8 pixels that are certified, with Pillow.

Only the first frame is used, as 8-bit RGB or gray. Its EXIF orientation is ignored, as in the reference, unless the job
has `preprocess.orient`. Resize and crop give the pixels of torchvision's Resize and CenterCrop on PIL images, without
torchvision: pages show images where it is not installed.

The work has two steps, because a GPU can decode between them (card_decoder.py): `open_image` reads the header,
`finish` makes the pixels.

Not covered: normalisation, which follows the hiding of pixels (votes/); naming files that are not images
(storage/file_kinds.py).
"""

import io
import math
from typing import NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError, features

from smoothcert.manifests.errors import ImageError
from smoothcert.manifests.job import Preprocess
from smoothcert.manifests.names import one_line
from smoothcert.workers.storage.file_kinds import kind_of

MAX_PIXELS = 64 * 1000**2
"""Larger images, before or after the resize, are refused before they are decoded."""

_PNG_TEXT_BYTES = 256 * 1024**2
_MAX_ERROR_CHARACTERS = 300
# Pillow decodes these formats by itself. For others, such as EPS, it would start programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# By EXIF orientation. Pillow's exif_transpose would rewrite the EXIF data, and fails if they are damaged.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodedImage(NamedTuple):
    """An image file, decoded and preprocessed.

    Attributes:
        width, height: as stored, in pixels.
        pixels: [crop, crop, channels] uint8, or None if there is an error.
        error: why there are no pixels, or None.
        rotated: whether its EXIF orientation says that the stored pixels are not upright.
    """

    width: int | None
    height: int | None
    pixels: NDArray[np.uint8] | None
    error: ImageError | None
    rotated: bool = False


class OpenedImage(NamedTuple):
    """An image file whose header is read.

    Attributes:
        width, height: as stored, in pixels.
        image: its pixels are not decoded yet; None if there is an error.
        error: why it cannot be decoded, or None.
    """

    width: int | None
    height: int | None
    image: Image.Image | None
    error: ImageError | None


def decode(data: bytes, preprocess: Preprocess) -> DecodedImage:
    """Decode and preprocess one image. If that fails, the result holds the ImageError instead of pixels.

    A job whose decoder is not Pillow needs `decode_one` of card_decoder.py.
    """
    assert preprocess.decoder == "pillow"
    return finish(open_image(data, preprocess), preprocess)


def open_image(data: bytes, preprocess: Preprocess) -> OpenedImage:
    """Read the header of an image file, and check that the job takes an image of its size."""
    width = height = None
    try:
        image = _open(data)
        width, height = image.size
        _check_size(width, height, preprocess)
        return OpenedImage(width, height, image, None)
    except ImageError as error:
        return OpenedImage(width, height, None, error)


def finish(
    opened: OpenedImage, preprocess: Preprocess, stored: NDArray[np.uint8] | ImageError | None = None
) -> DecodedImage:
    """Decode an image, turn it upright if the job says so, convert, resize and crop it.

    Args:
        opened: the image.
        preprocess: of the job.
        stored: [height, width, 3], what another decoder made of it, or its error; None: Pillow decodes it.
    """
    width, height, image, error = opened
    if image is None:
        return DecodedImage(width, height, None, error)
    try:
        pixels = _preprocess(_decoded(image, preprocess, stored), preprocess)
        return DecodedImage(width, height, pixels, None, _turn_of(image) is not None)
    except ImageError as error:
        return DecodedImage(width, height, None, error)


def decode_whole(data: bytes, preprocess: Preprocess) -> Image.Image:
    """Decode the first frame to 8 bits in the job's channels, without resize and crop.

    Raises:
        ImageError: the image cannot be read, or is too large.
    """
    assert preprocess.decoder == "pillow"
    image = _open(data)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_large", f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS}")
    return _decoded(image, preprocess)


def pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """[height, width, channels] of an RGB or gray image."""
    return np.atleast_3d(np.asarray(image))


def image_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """The RGB or gray image of pixels [height, width, channels]."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def decoder_version() -> str:
    """Name and version of Pillow's decoder, as files of votes record them."""
    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version_feature('libjpeg_turbo')}"


def _open(data: bytes) -> Image.Image:
    _prepare_pillow()
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError:
        raise ImageError("decode_error", f"{kind_of(data)}; images are {', '.join(_FORMATS)}") from None
    except MemoryError:
        raise  # a fault of the machine, not of the image
    except Exception as error:  # damaged headers raise almost anything, ValueError to struct.error
        raise ImageError("decode_error", _text(error)) from None


def _prepare_pillow() -> None:
    """Raise Pillow's limits that would refuse good images, for the whole process.

    The old limits are not restored after an image, because other threads decode at the same time.
    """
    Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is the limit; Pillow's own would only warn
    # Pillow refuses PNGs with 1 MiB of text or colour profile, or 64 MiB together, as attacks.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _PNG_TEXT_BYTES
    Image.init()  # Image.open does not load the formats that it is told to try


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
        resized = math.prod(_resized((width, height), preprocess))
    if max(pixels, resized) > MAX_PIXELS:
        raise ImageError(
            "too_large", f"{width} x {height} pixels, {max(pixels, resized)} with the resize; the limit is {MAX_PIXELS}"
        )


def _decoded(
    image: Image.Image, preprocess: Preprocess, stored: NDArray[np.uint8] | ImageError | None = None
) -> Image.Image:
    """The pixels of an opened image as 8-bit RGB or gray: `stored`, or what Pillow decodes."""
    if isinstance(stored, ImageError):
        raise stored
    try:
        if stored is None:
            image.load()
        as_stored = image if stored is None else _image_of_size(image.size, stored)
        turn = _turn_of(image) if preprocess.orient else None
        upright = as_stored if turn is None else as_stored.transpose(turn)
        return _in_mode("L" if preprocess.channels == 1 else "RGB", upright)
    except (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError) as error:
        raise ImageError("decode_error", _text(error)) from None


def _image_of_size(size: tuple[int, int], pixels: NDArray[np.uint8]) -> Image.Image:
    image = image_of(pixels)
    if image.size != size:
        raise ImageError("decode_error", f"decoded to {image.size} pixels, but its header says {size}")
    return image


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """How to turn a loaded image upright, as its EXIF orientation says; None if it is upright already."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF data raise almost anything, but the pixels are good
        return None


def _in_mode(mode: str, image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        # Pillow would clip these at 255. The high bytes are also what it takes of 16-bit colour images.
        high_bytes = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(high_bytes.astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise ImageError("decode_error", "floating-point pixels have no 8-bit meaning")
    image.info.pop("transparency", None)  # dropped, like any alpha channel
    return image.convert(mode)


def _resized(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Width and height after the resize: the shorter side has `resize` pixels, or both have."""
    assert preprocess.resize is not None
    if preprocess.squash:
        return preprocess.resize, preprocess.resize
    shorter = min(size)
    width, height = (int(preprocess.resize * length / shorter) for length in size)
    return width, height


def _preprocess(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    if preprocess.resize is not None:
        image = image.resize(_resized(image.size, preprocess), _FILTERS[preprocess.interpolation])
        left, top = (round((length - preprocess.crop) / 2) for length in image.size)
        image = image.crop((left, top, left + preprocess.crop, top + preprocess.crop))
    return pixels_of(image)


def _text(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}", _MAX_ERROR_CHARACTERS)
