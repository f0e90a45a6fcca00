"""Images become the pixels that torchvision makes of them; all other bytes become an error by name."""

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torchvision.transforms as T
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin
from torchvision.transforms import InterpolationMode

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.tars.images import MAX_PIXELS, DecodedImage, decode, decode_whole

AS_IT_IS = Preprocess(resize=None, crop=8)
SMALL = Preprocess(resize=8, crop=8)


def _noise(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(width * 1000 + height).integers(0, 256, shape, dtype=np.uint8)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _pixels(decoded: DecodedImage) -> NDArray[np.uint8]:
    assert decoded.error is None
    assert decoded.pixels is not None
    assert decoded.pixels.dtype == np.uint8
    return decoded.pixels


def _status(decoded: DecodedImage) -> str:
    assert decoded.pixels is None
    assert decoded.error is not None
    assert decoded.error.message
    return decoded.error.status


JPEG = _file(Image.fromarray(_noise(64, 64)), "JPEG")
PNG = _file(Image.fromarray(_noise(64, 64)), "PNG")

DAMAGED = {
    "no bytes": b"",
    "text": b"This is no image.",
    "only JPEG's first bytes": JPEG[:3],
    "JPEG cut in its header": JPEG[:200],
    "JPEG cut in its pixels": JPEG[: len(JPEG) // 2],
    "JPEG cut shortly before its end": JPEG[:-40],
    "PNG cut in its header": PNG[:20],
    "PNG cut in its pixels": PNG[: len(PNG) // 2],
    "PNG with a changed byte": PNG[:300] + bytes([PNG[300] ^ 1]) + PNG[301:],
    "JPEG without its tables": JPEG[:20] + bytes(200) + JPEG[220:],
    "WebP cut": _file(Image.fromarray(_noise(64, 64)), "WEBP")[:200],
    "GIF cut": _file(Image.fromarray(_noise(64, 64)).quantize(), "GIF")[:100],
    "floating-point TIFF": _file(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_image_is_a_decode_error(data: bytes) -> None:
    """Bytes that do not decode whole are a decode_error with a reason, never an exception and never pixels."""
    assert _status(decode(data, SMALL)) == "decode_error"


def test_a_cut_image_keeps_its_size() -> None:
    """Width and height of the header are given even where the pixels do not decode."""
    decoded = decode(JPEG[: len(JPEG) // 2], SMALL)
    assert (decoded.width, decoded.height) == (64, 64)


def test_one_pixel_fills_the_crop() -> None:
    """An image of one pixel is enlarged to the crop, all of its colour."""
    data = _file(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG")
    decoded = decode(data, SMALL)
    assert (decoded.width, decoded.height) == (1, 1)
    assert (_pixels(decoded) == (10, 20, 30)).all()
    assert _pixels(decoded).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    """RGB of 8 bits in a lossless format comes back as it was."""
    assert (_pixels(decode(_file(Image.fromarray(_noise(8, 8)), kind), AS_IT_IS)) == _noise(8, 8)).all()


def test_gray_becomes_three_equal_channels() -> None:
    """A gray image has its value in all three channels."""
    gray = _noise(8, 8, 1)
    assert (_pixels(decode(_file(Image.fromarray(gray), "PNG"), AS_IT_IS)) == gray[:, :, None]).all()


def test_one_bit_is_black_and_white() -> None:
    """An image of one bit a pixel is black and white, not 0 and 1."""
    image = Image.fromarray(_noise(8, 8, 1)).point(lambda value: 255 * (value > 127)).convert("1")
    assert set(np.unique(_pixels(decode(_file(image, "PNG"), AS_IT_IS)))) == {0, 255}


def test_cmyk_is_converted_as_pillow_does() -> None:
    """A CMYK JPEG, some of ImageNet's, is what Pillow converts it to: white where there is no ink."""
    plain = _pixels(decode(_file(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), AS_IT_IS))
    red = _pixels(decode(_file(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), AS_IT_IS))
    assert (plain > 250).all()
    assert (red[:, :, 0] > 250).all()
    assert (red[:, :, 1:] < 5).all()


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128, 255])])
def test_a_palette_image_has_its_colours(transparency: int | bytes | None) -> None:
    """A palette image has its colours; transparency is dropped and gives no warning."""
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indices = np.arange(64).reshape(8, 8) % 3
    image.putdata(indices.ravel().tolist())
    options = {} if transparency is None else {"transparency": transparency}
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    assert (_pixels(decode(_file(image, "PNG", **options), AS_IT_IS)) == colours[indices]).all()


def test_alpha_is_dropped() -> None:
    """The colours under an alpha channel are taken as they are."""
    pixels = _noise(8, 8, 4)
    assert (_pixels(decode(_file(Image.fromarray(pixels), "PNG"), AS_IT_IS)) == pixels[:, :, :3]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled(kind: str) -> None:
    """16-bit gray is scaled to 8 bits, not clipped at 255."""
    gray = (np.arange(64, dtype=np.uint32).reshape(8, 8) * 1040).astype(np.uint16)
    pixels = _pixels(decode(_file(Image.fromarray(gray), kind), AS_IT_IS))
    assert (pixels == (gray >> 8)[:, :, None]).all()
    assert pixels.max() == 255


def test_sixteen_bit_colour_is_scaled_as_gray_is() -> None:
    """16-bit colour is scaled as 16-bit gray is."""
    colour = (np.arange(192, dtype=np.uint32).reshape(8, 8, 3) * 343).astype(">u2")
    header = b"P6 8 8 65535\n"
    pixels = _pixels(decode(header + colour.tobytes(), AS_IT_IS))
    assert (np.abs(pixels.astype(int) - (colour >> 8).astype(int)) <= 1).all()
    assert len(np.unique(pixels)) > 150


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    """Of an animated image the first frame counts."""
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _file(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (_pixels(decode(data, AS_IT_IS)) == (255, 0, 0)).all()


_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {  # EXIF 2.3, section 4.6.4: orientation
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", _UPRIGHT)
def test_exif_orientation_counts_only_with_orient(orientation: int, kind: str) -> None:
    """Pixels stay as stored, as in the reference, unless the job has `orient`; either way the image is counted."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _file(Image.fromarray(_noise(10, 8)), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    stored, upright = (decode(data, Preprocess(resize=8, crop=8, orient=orient)) for orient in (False, True))
    assert {(one.width, one.height, one.rotated) for one in (stored, upright)} == {(10, 8, orientation != 1)}
    assert (_pixels(stored) == _noise(10, 8)[:, 1:9]).all()
    turned = _UPRIGHT[orientation](_noise(10, 8))
    middle = turned[:, 1:9] if turned.shape[0] == 8 else turned[1:9]
    assert (_pixels(upright) == middle).all()
    assert (np.asarray(decode_whole(data, Preprocess(orient=True))) == turned).all()


@pytest.mark.parametrize("value", [0, 9, 65535])
@pytest.mark.parametrize("orient", [False, True])
def test_a_meaningless_orientation_is_ignored(value: int, orient: bool) -> None:
    """An orientation that EXIF does not know is none, and never costs the image."""
    exif = Image.Exif()
    exif[0x0112] = value
    decoded = decode(
        _file(Image.fromarray(_noise(8, 8)), "PNG", exif=exif), SMALL.model_copy(update={"orient": orient})
    )
    assert not decoded.rotated
    assert (_pixels(decoded) == _noise(8, 8)).all()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_costs_no_image(exif: bytes) -> None:
    """Pixels are there whatever is wrong with what a camera wrote beside them."""
    data = _file(Image.fromarray(_noise(8, 8)), "PNG", exif=exif)
    assert (_pixels(decode(data, SMALL.model_copy(update={"orient": True}))) == _noise(8, 8)).all()


def test_an_image_with_odd_exif_is_turned() -> None:
    """Orientation 6 counts, whatever cannot be written again of the other EXIF data."""
    entries = [(0x0100, 2, 4, b"abc\0"), (0x0111, 2, 4, b"xyz\0"), (0x0112, 3, 1, b"\6\0\0\0")]
    body = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)
    data = _file(Image.fromarray(_noise(8, 8)), "PNG", exif=exif)
    decoded = decode(data, SMALL.model_copy(update={"orient": True}))
    assert decoded.rotated
    assert (_pixels(decoded) == _UPRIGHT[6](_noise(8, 8))).all()


@pytest.mark.parametrize("megabytes", [1, 20])
def test_large_texts_and_profiles_cost_no_image(megabytes: int) -> None:
    """A PNG decodes whatever colour profile and texts it carries beside its pixels."""
    large = bytes(megabytes * 1024**2 + 1)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("zTXt", large.decode(), zip=True)
    texts.add_itxt("iTXt", large.decode(), zip=True)
    data = _file(Image.fromarray(_noise(8, 8)), "PNG", icc_profile=large, pnginfo=texts)
    assert len(data) < len(large)
    assert (_pixels(decode(data, AS_IT_IS)) == _noise(8, 8)).all()


PILLOWS_LIMITS = """
import sys
from PIL import Image, PngImagePlugin
def limits():
    return Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image._initialized
before = limits()
from smoothcert.workers.tars.images import decode
import smoothcert.workers.certifier, smoothcert.workers.training.loop
assert limits() == before, limits()
from smoothcert.manifests.job import Preprocess
decode(b"", Preprocess())
assert limits() != before
"""


def test_importing_leaves_pillow_as_it_is() -> None:
    """A program that imports smoothcert and decodes images of its own keeps Pillow's limits."""
    assert subprocess.run([sys.executable, "-c", PILLOWS_LIMITS], check=False).returncode == 0


GRAY = Preprocess(resize=None, crop=8, mean=0.5, std=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_gray_pixels_are_pillows(mode: str) -> None:
    """For a gray network every image is what Pillow's conversion to L makes of it: one channel."""
    image = Image.fromarray(_noise(8, 8))
    image = image.quantize(16) if mode == "P" else image.convert("L" if mode == "I;16" else mode)
    expected = np.asarray(image.convert("L"))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) << 8)
    decoded = decode(_file(image, "TIFF" if mode == "CMYK" else "PNG"), GRAY)
    assert _pixels(decoded).shape == (8, 8, 1)
    assert (_pixels(decoded)[:, :, 0] == expected).all()


def test_gray_resize_is_torchvisions() -> None:
    """Resize and crop work on the gray image."""
    image = Image.fromarray(_noise(61, 47)).convert("L")
    reference = T.Compose([T.Resize(32), T.CenterCrop(28)])(image)
    decoded = decode(_file(image, "PNG"), Preprocess(resize=32, crop=28, mean=(0.5,), std=(0.5,)))
    assert (_pixels(decoded)[:, :, 0] == np.asarray(reference)).all()


@pytest.fixture
def never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding is a failure of the test."""

    def fail(_image: ImageFile.ImageFile) -> None:
        pytest.fail("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)


@pytest.mark.usefixtures("never_decoded")
def test_hundred_megapixels_are_refused_at_once() -> None:
    """An image above the limit is too_large by its header, without being decoded."""
    data = _file(Image.new("1", (10_000, 10_000)), "PNG")
    decoded = decode(data, SMALL)
    assert _status(decoded) == "too_large"
    assert (decoded.width, decoded.height) == (10_000, 10_000)
    assert _status(decode(data, AS_IT_IS)) == "too_large"


def test_limit_is_the_largest_that_passes() -> None:
    """An image of exactly as many pixels as the limit is decoded."""
    data = _file(Image.new("1", (8_000, MAX_PIXELS // 8_000)), "PNG")
    assert _pixels(decode(data, SMALL)).shape == (8, 8, 3)


@pytest.mark.usefixtures("never_decoded")
@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_strip_that_a_resize_would_blow_up_is_refused(size: tuple[int, int]) -> None:
    """A small image whose resize would be above the limit is too_large before it is resized."""
    data = _file(Image.new("1", size), "PNG")
    decoded = decode(data, Preprocess(resize=256, crop=224))
    assert _status(decoded) == "too_large"


@pytest.mark.parametrize("size", [(8, 9), (9, 8), (7, 8), (16, 16), (1, 1)])
def test_other_size_without_resize_is_an_error(size: tuple[int, int]) -> None:
    """With resize null an image of another size than the crop is a size_error that names both."""
    decoded = decode(_file(Image.new("RGB", size), "PNG"), AS_IT_IS)
    assert _status(decoded) == "size_error"
    assert decoded.error is not None
    assert f"{size[0]} x {size[1]}" in decoded.error.message
    assert "8 x 8" in decoded.error.message


@given(
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    frame=st.tuples(st.integers(1, 64), st.integers(1, 64)),
)
@example(interpolation="bicubic", size=(640, 427), frame=(224, 256))
@example(interpolation="bilinear", size=(29, 29), frame=(28, 29))
@example(interpolation="bilinear", size=(5, 3), frame=(27, 32))
def test_equal_to_torchvision(
    interpolation: Literal["bilinear", "bicubic"], size: tuple[int, int], frame: tuple[int, int]
) -> None:
    """Resize and crop give the same pixels as torchvision's Resize and CenterCrop on the PIL image."""
    crop, resize = sorted(frame)
    image = Image.fromarray(_noise(*size))
    reference = T.Compose([T.Resize(resize, InterpolationMode(interpolation)), T.CenterCrop(crop)])
    decoded = decode(_file(image, "PNG"), Preprocess(resize=resize, crop=crop, interpolation=interpolation))
    assert (decoded.width, decoded.height) == size
    assert (_pixels(decoded) == np.asarray(reference(image))).all()


@pytest.mark.parametrize("size", [(61, 47), (47, 61), (33, 200), (5, 3), (1, 100_000)])
def test_squash_is_torchvisions_resize_to_a_square(size: tuple[int, int]) -> None:
    """Whatever the shape of the image; a long strip is then not too large."""
    image = Image.fromarray(_noise(*size))
    expected = T.Compose([T.Resize((32, 32)), T.CenterCrop(28)])(image)
    decoded = decode(_file(image, "PNG"), Preprocess(resize=32, squash=True, crop=28))
    assert (_pixels(decoded) == np.asarray(expected)).all()
