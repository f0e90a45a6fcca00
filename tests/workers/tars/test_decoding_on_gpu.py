"""nvJPEG on a GPU against Pillow. Needs no ray, so it runs on a bare machine, too."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from smoothcert.manifests.errors import ImageError
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.tars.card_decoder import CardDecoder, card_for, decode_on_card, decode_one
from smoothcert.workers.tars.images import decode
from smoothcert.workers.tars.jpeg_header import is_usual_jpeg
from tests.helpers.jpegs import as_file, photo, turned

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

WITH_CARD, WITH_PILLOW = (Preprocess(resize=60, crop=48, decoder=name) for name in ("nvjpeg", "pillow"))
_LEVELS = 6  # largest mean difference from Pillow's pixels
_KINDS = {
    "baseline": as_file(photo(500, 375, 1), quality=90),
    "4:4:4": as_file(photo(224, 224, 2), subsampling="4:4:4"),
    "4:2:2": as_file(photo(225, 131, 3), subsampling="4:2:2"),
    "gray": as_file(photo(150, 100, 4, mode="L")),
    "progressive": as_file(photo(200, 160, 5), progressive=True),
    "progressive gray": as_file(photo(200, 160, 6, mode="L"), progressive=True),
    "restarts": as_file(photo(201, 77, 7), restart_marker_blocks=3),
    "small": as_file(photo(7, 5, 8)),
    "turned": as_file(photo(90, 160, 9), exif=turned(6)),
}


@pytest.fixture(scope="module")
def card() -> CardDecoder:
    found = card_for(WITH_CARD)
    assert found is not None
    return found


def _apart(one: NDArray[np.uint8] | None, other: NDArray[np.uint8] | None) -> float:
    """The mean difference in levels."""
    assert one is not None
    assert other is not None
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("changes", [{}, {"orient": True}, {"mean": (0.5,), "std": (0.5,)}], ids=str)
def test_pixels_are_near_those_of_pillow(card: CardDecoder, changes: dict[str, object]) -> None:
    """Of every kind that the GPU decodes, in order, after resize and crop."""
    assert all(map(is_usual_jpeg, _KINDS.values()))
    found = decode_on_card(list(_KINDS.values()), WITH_CARD.model_copy(update=changes), card)
    for data, one in zip(_KINDS.values(), found, strict=True):
        assert one.error is None
        assert _apart(one.pixels, decode(data, WITH_PILLOW.model_copy(update=changes)).pixels) < _LEVELS


def test_gray_files_have_three_equal_channels(card: CardDecoder) -> None:
    """As Pillow makes them."""
    for name in ("gray", "progressive gray"):
        (stored,) = card.pixels_of([_KINDS[name]])
        assert isinstance(stored, np.ndarray)
        assert (stored == stored[:, :, :1]).all()


def test_the_company_of_a_file_does_not_change_its_pixels(card: CardDecoder) -> None:
    """A batch of other files, or none, and another order."""
    files = [as_file(photo(64 + seed, 48, seed)) for seed in range(40)] + list(_KINDS.values())
    together, reverse = decode_on_card(files, WITH_CARD, card), decode_on_card(files[::-1], WITH_CARD, card)[::-1]
    for data, one, other in zip(files, together, reverse, strict=True):
        assert one.pixels is not None
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.pixels, decode_one(data, WITH_CARD).pixels)


def test_damaged_files_do_not_hurt_the_others(card: CardDecoder) -> None:
    """One that was cut off, and one whose coded pixels are noise; what that one gives, an error or pixels, is free."""
    good = [as_file(photo(120, 90, seed)) for seed in range(6)]
    whole = as_file(photo(120, 90, 9))
    scan = whole.index(b"\xff\xda")
    noise = bytes(np.random.default_rng(0).integers(0, 255, 900, dtype=np.uint8))  # never 255, so no marker
    cut, noisy = whole[: len(whole) // 2], whole[: scan + 14] + noise + whole[-2:]
    assert (is_usual_jpeg(cut), is_usual_jpeg(noisy)) == (False, True)
    expected = [decode_one(data, WITH_CARD).pixels for data in good]
    first, damaged, second, third, free, *rest = decode_on_card(
        [good[0], cut, good[1], good[2], noisy, *good[3:]], WITH_CARD, card
    )
    assert damaged.error is not None
    assert (damaged.pixels, damaged.error.status) == (None, "decode_error")
    assert (free.pixels is None) == (free.error is not None)
    for number, one in enumerate((first, second, third, *rest)):
        assert one.pixels is not None
        assert np.array_equal(one.pixels, expected[number])


def test_a_file_that_nvjpeg_refuses_fails_alone(card: CardDecoder) -> None:
    """The whole call fails at first. Afterwards the decoder works on."""
    files = [as_file(photo(60 + seed, 50, seed)) for seed in range(5)]
    expected = card.pixels_of(files)
    for _ in range(2):
        *found, refused, last = card.pixels_of([*files[:4], b"no JPEG at all", files[4]])
        assert isinstance(refused, ImageError)
        assert refused.status == "decode_error"
        for one, other in zip((*found, last), expected, strict=True):
            assert isinstance(one, np.ndarray)
            assert isinstance(other, np.ndarray)
            assert np.array_equal(one, other)


def test_calls_beside_other_work_on_the_gpu_give_the_same_pixels(card: CardDecoder) -> None:
    """The engine computes while a batch is decoded."""
    files = [as_file(photo(300, 200, seed)) for seed in range(8)]
    expected = [one.pixels for one in decode_on_card(files, WITH_CARD, card)]
    matrix = torch.ones(2048, 2048, device="cuda")
    for _ in range(5):
        for _ in range(20):
            matrix = (matrix @ matrix).clamp(0, 1)
        for one, other in zip(decode_on_card(files, WITH_CARD, card), expected, strict=True):
            assert one.pixels is not None
            assert other is not None
            assert np.array_equal(one.pixels, other)
