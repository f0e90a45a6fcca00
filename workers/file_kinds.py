"""What a file is that is no image, in words: told by its first bytes, for messages alone."""

import re

_LOOKED_AT = 512
_KINDS = [
    (rb"\xff\xd8\xff", "a damaged JPEG image"),
    (rb"\x89PNG|\x8aMNG", "a damaged PNG image"),
    (rb"RIFF.{4}WEBP", "a damaged WebP image"),
    (rb"GIF8", "a damaged GIF image"),
    (rb"II\*\x00|MM\x00\*", "a damaged TIFF image, or a camera's raw file"),
    (rb"\x1f\x8b", "a gzip file; unpack it"),
    (rb"BZh|\xfd7zXZ\x00|\x28\xb5\x2f\xfd", "a compressed file; unpack it"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb".{257}ustar", "a tar"),
    (rb"%PDF-", "a PDF file"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb".{4}ftypavi[fs]", "an AVIF image; convert it"),
    (rb".{4}ftyp(?:hei|hev|mif1|msf1)", "a HEIF image; convert it"),
    (rb"\xff\x0a|\x00{3}\x0cJXL ", "a JPEG XL image; convert it"),
    (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a video"),
    (rb"8BPS", "a Photoshop file; convert it"),
    (rb"\x00\x00\x01\x00", "a Windows icon; convert it"),
    (rb"\x93NUMPY", "a NumPy array; store an image file instead"),
    (rb"\x80[\x02-\x05]", "a Python pickle; store an image file instead"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the image; run `git lfs pull` before you pack it"),
    (rb"\s*(?:<\?xml.*?)?<svg", "an SVG drawing; convert it"),
    (rb"\s*<(?:!doctype html|html|head|body)", "an HTML page, perhaps the error page of a download"),
    (rb"\s*<\?xml|\s*<\w+", "an XML document, perhaps the error page of a download"),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON"),
]


def kind_of(data: bytes) -> str:
    """What the file is, such as `the file is an HTML page`; its first bytes where nothing is known."""
    if not data:
        return "the file is empty"
    start = data[:_LOOKED_AT]
    for pattern, kind in _KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return f"the file is {kind}"
    if not start.strip(b"\0"):
        return "the file holds only zeros, perhaps after a copy that broke off"
    text = " ".join(start.decode("utf-8", "ignore").split())
    if text.isprintable() and len(text) > len(start) // 2:
        return f"the file is text ({text[:40]!r})"
    return f"the file is of an unknown kind (it begins with {start[:8].hex(' ')})"
