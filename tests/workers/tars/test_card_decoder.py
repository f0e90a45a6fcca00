"""The GPU's part of decoding, with torchvision's decoder on the CPU in its place: that one gives Pillow's pixels."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from smoothcert.manifests.errors import ImageError, RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.tars import card_decoder
from smoothcert.workers.tars.card_decoder import CardDecoder, card_for, decode_on_card, decode_one, decoder_of
from smoothcert.workers.tars.images import DecodedImage, decode, decoder_version
from smoothcert.workers.tars.jpeg_header import is_usual_jpeg
from tests.helpers.jpegs import as_file, photo, turned

CPU = torch.device("cpu")
WITH_CARD = Preprocess(resize=20, crop=16, decoder="nvjpeg")
FILES = {
    "colour": as_file(photo(40, 30)),
    "PNG": as_file(photo(30, 40), "PNG"),
    "gray": as_file(photo(24, 24, mode="L")),
    "no image": b"no image",
    "progressive": as_file(photo(50, 33), progressive=True),
    "CMYK": as_file(photo(33, 50, mode="CMYK")),
    "cut off": as_file(photo(64, 64))[:-40],
    "turned": as_file(photo(40, 25), exif=turned(6)),
    "RGB": as_file(photo(40, 25), keep_rgb=True),
    "large": b"P6 100000 100000 255\n" + bytes(100),
    "4:4:4": as_file(photo(17, 19), subsampling="4:4:4"),
}


class _Noting(CardDecoder):
    """Remembers how many files each call got. Files with `DAMAGED` in them fail, as others of their call do."""

    def __init__(self, message: str = "Failed to decode jpeg stream: 3") -> None:
        super().__init__(CPU)
        self.calls = list[int]()
        self._message = message

    def _decode(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        self.calls.append(len(files))
        if any(b"DAMAGED" in data for data in files):
            raise RuntimeError(self._message)
        return super()._decode(files)


@pytest.fixture
def card_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that seems to have a card."""
    monkeypatch.setattr(card_decoder, "_card", lambda: CardDecoder(CPU))


def _pillow(preprocess: Preprocess) -> Preprocess:
    return preprocess.model_copy(update={"decoder": "pillow"})


def _require_equal(found: DecodedImage, expected: DecodedImage) -> None:
    assert found[:2] + found[4:] == expected[:2] + expected[4:]
    assert str(found.error) == str(expected.error)
    assert (found.pixels is None) == (expected.pixels is None)
    if found.pixels is not None:
        assert np.array_equal(found.pixels, expected.pixels)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"orient": True},
        {"mean": (0.5,), "std": (0.5,)},
        {"squash": True},
        {"interpolation": "bicubic", "crop": 11},
        {"resize": None, "crop": 24},
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [False, True])
def test_all_else_is_as_with_pillow_alone(changes: dict[str, Any], threads: bool) -> None:
    """Order, errors, orientation, gray, resize and crop; each file alone gives the same."""
    preprocess = WITH_CARD.model_copy(update=changes)
    expected = [decode(data, _pillow(preprocess)) for data in FILES.values()]
    with ThreadPoolExecutor(3) as executor:
        for_each: Any = executor.map if threads else map
        found = decode_on_card(list(FILES.values()), preprocess, CardDecoder(CPU), for_each)
    for data, one, other in zip(FILES.values(), found, expected, strict=True):
        _require_equal(one, other)
        _require_equal(decode_on_card([data], preprocess, CardDecoder(CPU))[0], other)
    assert sum(one.pixels is not None for one in found) == (1 if preprocess.resize is None else len(FILES) - 3)


@settings(max_examples=20)
@given(st.lists(st.sampled_from(sorted(FILES)), max_size=9), st.integers(1, 3000))
def test_order_and_parts_do_not_matter(names: list[str], at_once: int) -> None:
    """However many pixels go to the card in one call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_decoder, "_PIXELS_AT_ONCE", at_once)
        found = decode_on_card([FILES[name] for name in names], WITH_CARD, CardDecoder(CPU))
    for name, one in zip(names, found, strict=True):
        _require_equal(one, decode(FILES[name], _pillow(WITH_CARD)))


def test_the_card_gets_the_usual_jpegs_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one call, unless they have too many pixels together."""
    usual = sum(map(is_usual_jpeg, FILES.values()))
    assert usual == 5
    card = _Noting()
    decode_on_card(list(FILES.values()), WITH_CARD, card)
    assert card.calls == [usual]
    monkeypatch.setattr(card_decoder, "_PIXELS_AT_ONCE", 3000)
    photos = [as_file(photo(*size)) for size in ((40, 30), (30, 30), (30, 29), (100, 100), (10, 10))]
    card = _Noting()
    decode_on_card(photos, WITH_CARD, card)
    assert card.calls == [3, 1, 1]


@pytest.mark.parametrize("damaged", [{3}, {0, 1, 6}, set(range(7))], ids=str)
def test_a_damaged_file_has_an_error_and_the_others_their_pixels(damaged: set[int]) -> None:
    """Although the decoder refuses the call as a whole."""
    files = [as_file(photo(30, 20, seed), comment=b"DAMAGED" if seed in damaged else b"") for seed in range(7)]
    found = decode_on_card(files, WITH_CARD, _Noting())
    for number, one in enumerate(found):
        if number in damaged:
            assert (one.width, one.height, one.pixels) == (30, 20, None)
            assert one.error is not None
            assert (one.error.status, one.error.message) == ("decode_error", "nvJPEG: Failed to decode jpeg stream: 3")
        else:
            _require_equal(one, decode(files[number], _pillow(WITH_CARD)))


def test_a_fault_of_the_gpu_is_no_error_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it becomes no row: memory that is short, or a GPU that decodes nothing any more."""
    files = [as_file(photo(), comment=b"DAMAGED")]
    for message in (
        "Error while decoding JPEG images: Failed to create nvjpeg state: 5",
        "Failed to decode batch: 5\n",
    ):
        with pytest.raises(RuntimeError, match="Failed to"):
            decode_on_card(files, WITH_CARD, _Noting(message))
    short = _Noting()
    monkeypatch.setattr(short, "_decode", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("short")))
    with pytest.raises(torch.OutOfMemoryError):
        decode_on_card([FILES["colour"]] * 2, WITH_CARD, short)
    with pytest.raises(torch.OutOfMemoryError):
        short.try_out()  # no RequestError, which would end the whole run
    monkeypatch.setattr(short, "_decode", lambda _: (_ for _ in ()).throw(torch.AcceleratorError("lost", 719)))
    with pytest.raises(torch.AcceleratorError):
        short.try_out()
    lost = _Noting()
    monkeypatch.setattr(lost, "_decode", lambda _: (_ for _ in ()).throw(RuntimeError("CUDA error: lost")))
    with pytest.raises(RuntimeError, match="CUDA error: lost"):
        decode_on_card([FILES["colour"]], WITH_CARD, lost)


def test_a_call_that_lacks_memory_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it fits; only a single image that does not fit is an error of the attempt."""
    card, calls = CardDecoder(CPU), []

    def decode_two(files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        calls.append(len(files))
        if len(files) > 2:
            raise RuntimeError("Failed to allocate: 5")
        return [np.full((1, 1, 3), len(data), np.uint8) for data in files]

    monkeypatch.setattr(card, "_decode", decode_two)
    found = card.pixels_of([b"a" * number for number in range(7)])
    assert [int(pixels[0, 0, 0]) for pixels in found if not isinstance(pixels, ImageError)] == [*range(7)]
    assert calls == [7, 3, 1, 2, 4, 2, 2]


def test_pixels_of_another_size_than_the_header_says_are_an_error() -> None:
    """They would be another image's."""

    class Other(CardDecoder):
        def pixels_of(self, files: Sequence[bytes]) -> list[NDArray[np.uint8] | ImageError]:
            return [np.zeros((5, 6, 3), np.uint8) for _ in files]

    (found,) = decode_on_card([FILES["colour"]], WITH_CARD, Other(CPU))
    assert found.pixels is None
    assert str(found.error) == "decode_error: decoded to (6, 5) pixels, but its header says (40, 30)"


def test_a_process_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; Pillow's jobs need none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    card_decoder._card.cache_clear()
    assert card_for(Preprocess()) is None
    for refused in (lambda: card_for(WITH_CARD), lambda: decode_one(FILES["PNG"], WITH_CARD)):
        with pytest.raises(RequestError, match=r"^preprocess\.decoder: nvjpeg needs a GPU, .* decoder: pillow, .*$"):
            refused()


def test_a_torchvision_without_the_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was built without nvJPEG, and a later one from which it is gone."""
    CardDecoder(CPU).try_out()

    def without(*_: object, **__: object) -> None:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled\nwith nvJPEG support")

    expected = (
        r"^preprocess\.decoder: torchvision \S+ cannot decode with nvJPEG on .*{}.*; install one that can, .*run$"
    )
    monkeypatch.setattr(torchvision.io, "decode_jpeg", without)
    with pytest.raises(RequestError, match=expected.format("not compiled with nvJPEG support")):
        CardDecoder(CPU).try_out()
    monkeypatch.delattr(torchvision.io, "decode_jpeg")
    with pytest.raises(RequestError, match=expected.format("no attribute 'decode_jpeg'")):
        CardDecoder(CPU).try_out()


def test_one_image_is_decoded_as_its_job_says(card_here: None) -> None:
    """By either decoder."""
    for preprocess in (WITH_CARD, _pillow(WITH_CARD)):
        for data in FILES.values():
            _require_equal(decode_one(data, preprocess), decode(data, _pillow(WITH_CARD)))


def test_pillow_alone_takes_no_job_of_the_other_decoder() -> None:
    """A caller that forgot the decoder is found out."""
    with pytest.raises(AssertionError):
        decode(FILES["colour"], WITH_CARD)


def test_the_names_of_the_decoders() -> None:
    """Both, because some files are Pillow's."""
    assert decoder_of(Preprocess()) == decoder_version()
    assert decoder_of(WITH_CARD).startswith(f"nvJPEG of torchvision {torchvision.__version__}, CUDA ")
    assert decoder_of(WITH_CARD).endswith(f"; for other files {decoder_version()}")


def test_a_tall_photo_keeps_its_shape() -> None:
    """Rows and columns are not mixed up."""
    (stored,) = CardDecoder(CPU).pixels_of([as_file(photo(3, 50))])
    assert isinstance(stored, np.ndarray)
    assert stored.shape == (50, 3, 3)
    assert Image.fromarray(stored).size == (3, 50)
