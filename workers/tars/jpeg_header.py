"""Which JPEGs a GPU decodes: the usual ones, as their bytes say.

The rule looks at bytes alone, never at whether a decoder fails, so all machines decide alike.
Source: ITU T.81, annex B (segments); Adobe's technical note 5116, section 18 (the Adobe segment).
"""

from collections.abc import Iterator
from typing import NamedTuple

_START, _END = b"\xff\xd8", b"\xff\xd9"
_BASELINE, _PROGRESSIVE = 0xC0, 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF; these three are tables and an extension
_TABLES = frozenset({0xDB, 0xC4})  # DQT and DHT, of quantisation and of Huffman codes
_SCAN, _ADOBE = 0xDA, 0xEE
_FILL = 0xFF
_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
_YCBCR = 1  # the colours of an Adobe segment
_USUAL_IDS = (1, 2, 3)  # other numbers may mean other colours, such as those of "RGB"
_USUAL_SAMPLINGS = ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1))  # of the luma, horizontal and vertical


class _Segment(NamedTuple):
    """A segment of a JPEG: its marker, what follows the length, and where the next one begins."""

    marker: int
    body: bytes
    end: int


class _Component(NamedTuple):
    """A channel as the frame header has it."""

    number: int
    sampling: tuple[int, int]


def is_usual_jpeg(data: bytes) -> bool:
    """Whether a file is a baseline or progressive JPEG of 8 bits, gray or YCbCr with a usual subsampling, with an end.

    Others are decoded by Pillow: CMYK and RGB, rare processes and subsamplings, files without tables of their own, and
    files that were cut off.
    """
    frames, adobe_colours, missing = list[_Segment](), _YCBCR, set(_TABLES)
    for segment in _segments(data):
        missing.discard(segment.marker)
        if segment.marker in _FRAMES:
            frames.append(segment)
        elif segment.marker == _ADOBE and segment.body.startswith(b"Adobe") and len(segment.body) >= 12:
            adobe_colours = segment.body[11]
        elif segment.marker == _SCAN:
            return (
                not missing
                and len(frames) == 1
                and _is_usual_frame(frames[0], adobe_colours)
                and data.rfind(_END, segment.end) >= 0  # coded pixels hold no such pair of bytes
            )
    return False


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments up to the first scan; fewer if they are damaged."""
    if not data.startswith(_START):
        return
    at = len(_START)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _FILL:
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4])  # counts its own two bytes
        end = at + 2 + length
        if marker in _WITHOUT_LENGTH or length < 2 or end > len(data):
            return
        yield _Segment(marker, data[at + 4 : end], end)
        at = end


def _is_usual_frame(frame: _Segment, adobe_colours: int) -> bool:
    body = frame.body
    if frame.marker not in (_BASELINE, _PROGRESSIVE) or len(body) < 6:
        return False
    bits, height, width, count = body[0], int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), body[5]
    if bits != 8 or height == 0 or width == 0 or len(body) != 6 + 3 * count:
        return False
    components = [_Component(body[at], (body[at + 1] >> 4, body[at + 1] & 0xF)) for at in range(6, len(body), 3)]
    if count == 1:
        return components[0].sampling == (1, 1)
    return (
        tuple(component.number for component in components) == _USUAL_IDS
        and adobe_colours == _YCBCR
        and components[0].sampling in _USUAL_SAMPLINGS
        and all(component.sampling == (1, 1) for component in components[1:])
    )
