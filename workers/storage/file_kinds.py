"""What kind of file it is, by its first bytes; for errors about a file of the wrong kind.

Not covered: the remedy, except for images; tars (tar_headers.py) and checkpoints (checkpoint_files.py) have their own.
"""

import codecs
import re
from typing import Literal, NamedTuple

HEAD_BYTES = 4096
"""The number of bytes at the start of a file from which its kind follows."""

Group = Literal["readable", "convert", "compressed", "archive", "tar", "pointer", "page", "parquet", "hdf5", "pickle"]
_BOM = codecs.BOM_UTF8
_PROLOG = rb"(?>\s+|<!--.*?-->|<\?.*?\?>)*+"  # of HTML and XML
_KINDS: list[tuple[bytes, str, Group | None]] = [
    (rb".{257}ustar", "a tar", "tar"),
    (rb"\xff\xd8\xff", "a JPEG image", "readable"),
    (rb"\x89PNG|\x8aMNG", "a PNG image", "readable"),
    (rb"RIFF.{4}WEBP", "a WebP image", "readable"),
    (rb"GIF8", "a GIF image", "readable"),
    (rb"II\*\x00|MM\x00\*", "a TIFF image, or a camera's raw file", "readable"),
    (rb"\x1f\x8b", "a gzip file", "compressed"),
    (rb"\x28\xb5\x2f\xfd", "a zstd file", "compressed"),
    (rb"BZh\d|\xfd7zXZ\x00|\x04\x22\x4d\x18", "a compressed file", "compressed"),
    (rb"PK(?:\x03\x04|\x05\x06)", "a zip archive", "archive"),
    (rb"Rar!\x1a|7z\xbc\xaf\x27\x1c", "an archive (RAR or 7z)", "archive"),
    (rb"PAR1", "a Parquet file", "parquet"),
    (rb"\x89HDF", "an HDF5 file", "hdf5"),
    (rb"%PDF-", "a PDF file", None),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file", None),
    (rb".{4}ftypavi[fs]", "an AVIF image", "convert"),
    (rb".{4}ftyp(?:hei|hev|mif1|msf1)", "a HEIF image", "convert"),
    (rb"\xff\x0a|\x00{3}\x0cJXL ", "a JPEG XL image", "convert"),
    (rb"qoif", "a QOI image", "convert"),
    (rb"P7\s", "a PAM image", "convert"),
    (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a video", None),
    (rb"8BPS", "a Photoshop file", "convert"),
    (rb"\x00\x00\x01\x00", "a Windows icon", "convert"),
    (rb"wOF[F2]|OTTO\x00", "a font", None),
    (rb"\x7fELF|MZ[\x00\x80-\xff]", "a program", None),
    (rb"\x93NUMPY", "a NumPy array", None),
    (rb"\x80[\x02-\x05]", "a Python pickle", "pickle"),
    (rb"version https://git-lfs", "a Git LFS pointer", "pointer"),
    (_PROLOG + rb"<(?:!doctype svg|svg)", "an SVG drawing", "convert"),
    (
        _PROLOG + rb"<(?:!doctype html|html|head|body|title|meta|script)",
        "an HTML page, perhaps the error page of a download",
        "page",
    ),
    (rb"\s*<(?:\w|\?xml|!)", "an XML document, perhaps the error page of a download", "page"),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON", None),
]
_WORDS = re.compile(r"\w\w\W+\w")
_IMAGE_REMEDIES: dict[Group | None, str] = {
    "convert": "convert it",
    "compressed": "unpack it",
    "pointer": "run `git lfs pull` before you pack it",
    "pickle": "store an image file instead",
}


class Kind(NamedTuple):
    """What a file is, such as `a gzip file`, and the group of kinds that share a remedy."""

    name: str
    group: Group | None


def known_kind(data: bytes) -> Kind | None:
    """What a file is, by its first HEAD_BYTES bytes; None if that is not clear."""
    start = data[:HEAD_BYTES].removeprefix(_BOM)
    for pattern, name, group in _KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return Kind(name, group)
    text = _text_of(start)
    return Kind(f"text ({text[:40]!r})", None) if text is not None else None


def kind_of(data: bytes) -> str:
    """Why a file is not an image, such as `the file is a gzip file; unpack it`; of an unknown file, its first bytes."""
    if not data:
        return "the file is empty"
    if not data[:HEAD_BYTES].strip(b"\0"):
        return "the file holds only zeros, perhaps after a copy that broke off"
    kind = known_kind(data)
    if kind is None:
        return f"the file is of an unknown kind (it begins with {data[:8].hex(' ')})"
    if kind.group == "readable":
        return f"the file is a damaged {kind.name.removeprefix('a ')}"
    remedy = _IMAGE_REMEDIES.get(kind.group)
    return f"the file is {kind.name}; {remedy}" if remedy else f"the file is {kind.name}"


def _text_of(start: bytes) -> str | None:
    """The text on one line; None if a byte is not text, or nothing looks like words."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # a character may be cut at the end
    except UnicodeDecodeError:
        return None
    line = " ".join(text.split())
    return line if line.isprintable() and _WORDS.search(line) else None
