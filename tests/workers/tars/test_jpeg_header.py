"""The rule which JPEGs a GPU decodes, against what Pillow reads of the same files."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from smoothcert.workers.tars.jpeg_header import is_usual_jpeg
from tests.helpers.jpegs import as_file, photo, turned

USUAL = as_file(photo())
_OPTIONS = st.fixed_dictionaries(
    {"quality": st.integers(1, 100), "progressive": st.booleans(), "optimize": st.booleans()},
    optional={
        "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
        "restart_marker_blocks": st.integers(1, 9),
        "icc_profile": st.binary(min_size=1, max_size=300),
        "comment": st.binary(max_size=300),
        "exif": st.sampled_from([turned(6)]),
        "dpi": st.just((72, 72)),
    },
)


@given(
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    options=_OPTIONS,
    after=st.binary(max_size=20),
)
def test_gray_and_colour_are_usual_and_cmyk_is_not(
    mode: str, width: int, height: int, options: dict[str, Any], after: bytes
) -> None:
    """Whatever the size, the quality, the segments before the pixels, and the bytes after the end."""
    if mode == "L":
        options.pop("subsampling", None)  # Pillow would write it, although gray has nothing to subsample
    data = as_file(photo(width, height, mode=mode), **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert (opened.bits, opened.layers) == (8, {"RGB": 3, "L": 1, "CMYK": 4}[mode])
        assert ("progressive" in opened.info) == options["progressive"]
    assert is_usual_jpeg(data + after) == (mode != "CMYK")


@given(options=_OPTIONS, share=st.floats(0, 1))
def test_a_file_that_was_cut_off_is_not_usual(options: dict[str, Any], share: float) -> None:
    """Anywhere: an end in a segment before the pixels is none."""
    data = as_file(photo(40, 30), **options | {"comment": USUAL})
    assert not is_usual_jpeg(data[: int(share * (len(data) - 1))])


@given(st.binary(max_size=200))
def test_any_bytes_have_an_answer(tail: bytes) -> None:
    """Damaged headers are not usual, and no exception."""
    assert not is_usual_jpeg(tail)
    assert is_usual_jpeg(b"\xff\xd8" + tail) in (True, False)
    for begin in (20, 160, len(USUAL) - 30):
        assert is_usual_jpeg(USUAL[:begin] + tail) in (True, False)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_other_formats_are_not_usual(kind: str) -> None:
    """They are Pillow's."""
    assert not is_usual_jpeg(as_file(photo(), kind))


def _with_frame(data: bytes, at: int, value: int, marker: bytes = b"\xff\xc0") -> bytes:
    """A file with another byte in its frame header; `at` counts from the marker."""
    place = data.index(marker) + at
    return data[:place] + bytes([value]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("at", "value", "usual"),
    [
        (1, 0xC0, True),  # as it was
        (1, 0xC1, False),  # extended sequential
        (1, 0xC3, False),  # lossless
        (1, 0xC9, False),  # arithmetic coding
        (4, 12, False),  # bits
        (6, 0, False),  # height, if the other byte is 0: given later, by a DNL segment
        (9, 4, False),  # components, more than are there
        (10, ord("R"), False),  # name of the first component
        (11, 0x11, True),  # its sampling
        (11, 0x21, True),
        (11, 0x12, True),
        (11, 0x41, True),
        (11, 0x31, False),
        (11, 0x42, False),
        (14, 0x21, False),  # sampling of the second
    ],
)
def test_each_byte_of_the_frame_counts(at: int, value: int, usual: bool) -> None:
    """ITU T.81, B.2.2: what nvJPEG may not decode, or not in the same colours, is Pillow's."""
    assert is_usual_jpeg(_with_frame(USUAL, at, value)) == usual


def test_rgb_without_ycbcr_is_not_usual() -> None:
    """Neither by an Adobe segment nor by its component names."""
    rgb = as_file(photo(), keep_rgb=True)
    with Image.open(io.BytesIO(rgb)) as opened:
        assert [layer[0] for layer in opened.layer] == [ord(letter) for letter in "RGB"]  # type: ignore[attr-defined]
    assert not is_usual_jpeg(rgb)
    for colours, usual in ((0, False), (1, True), (2, False)):
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([colours])
        assert is_usual_jpeg(USUAL[:2] + adobe + USUAL[2:]) == usual


def test_gray_with_a_subsampling_is_not_usual() -> None:
    """Decoders may read its blocks in another order."""
    gray = photo(mode="L")
    assert is_usual_jpeg(as_file(gray))
    assert not is_usual_jpeg(as_file(gray, subsampling="4:2:0"))


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4"])
def test_a_file_without_tables_is_not_usual(marker: bytes) -> None:
    """libjpeg has Huffman tables of its own for such files; other decoders may fail."""
    data = USUAL
    while (start := data.find(marker)) >= 0:
        data = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4]) :]
    assert not is_usual_jpeg(data)


def test_two_frames_are_not_usual() -> None:
    """Decoders may take either."""
    start = USUAL.index(b"\xff\xc0")
    frame = USUAL[start : start + 2 + int.from_bytes(USUAL[start + 2 : start + 4])]
    assert not is_usual_jpeg(USUAL[:start] + frame + USUAL[start:])
