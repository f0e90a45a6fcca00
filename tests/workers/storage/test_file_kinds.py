"""The first bytes of a file show what it is."""

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.storage.file_kinds import kind_of
from smoothcert.workers.tars.images import decode
from tests.helpers.tars import png, tar_of


def _written_by_pillow(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    return file.getvalue()


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    return file.getvalue()


def _numpy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


FILES = {
    "empty": (b"", "the file is empty"),
    "gzip": (gzip.compress(png()), "the file is a gzip file; unpack it"),
    "page": (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    "page in capitals": (b"\n<HTML><HEAD>", "an HTML page"),
    "page with a BOM": (b"\xef\xbb\xbf<!DOCTYPE html>", "an HTML page"),
    "page after comments": (b"<!-- a --> <!-- b\n --><html>", "an HTML page"),
    "page of XHTML": (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML">', "an HTML page"),
    "comments without end": (b"<!--" * 1000, "an XML document"),
    "comments without page": (b"<!---->" * 500 + b"x", "an XML document"),
    "S3's error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
    "drawing": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "drawing of an editor": (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<!DOCTYPE svg PUBLIC>", "an SVG drawing"),
    "HEIF": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIF image"),
    "video": (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "a video"),
    "JPEG XL": (b"\xff\x0a\xfa\x1f\x41", "a JPEG XL image"),
    "zip": (_zip(), "a zip archive"),
    "tar": (tar_of([("a.png", png())]), "a tar"),
    "RAR": (b"Rar!\x1a\x07\x01\0", "an archive"),
    "Parquet": (b"PAR1\x15\x04\x15\x10", "a Parquet file"),
    "Parquet's magic alone": (b"PAR1", "a Parquet file"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "QOI": (b"qoif\0\0\0\x10", "a QOI image; convert it"),
    "PAM": (b"P7\nWIDTH 4\n", "a PAM image; convert it"),
    "font": (b"wOFF\0\1\0\0", "a font"),
    "program": (b"MZ\x90\0\3\0", "a program"),
    "PDF": (b"%PDF-1.7\n", "a PDF file"),
    "NumPy": (_numpy(), "a NumPy array"),
    "pickle": (pickle.dumps([1, 2]), "a Python pickle"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "a Git LFS pointer"),
    "JSON": (b'{"error": "not found"}', "JSON"),
    "text": (b"Not Found", "text ('Not Found')"),
    "address": (b"https://example.com/a.jpg\n", "text ('https://example.com/a.jpg')"),
    "text with umlauts, cut": ("Gr\u00f6\u00dfe \u00e4 ".encode() * 700, "text ('Gr\u00f6\u00dfe "),
    "letters that are no words": (b"MZ", "of an unknown kind (it begins with 4d 5a)"),
    "words with a byte that is none": (b"some words \xff and more", "of an unknown kind"),
    "zeros": (bytes(1000), "only zeros"),
    "cut JPEG": (_written_by_pillow("JPEG")[:3], "a damaged JPEG image"),
    "cut PNG": (png()[:10], "a damaged PNG image"),
    "noise": (bytes(range(128, 200)), "of an unknown kind (it begins with 80 81 82 83 84 85 86 87)"),
}


@pytest.mark.parametrize(("data", "says"), FILES.values(), ids=FILES.keys())
def test_a_decode_error_names_the_kind_of_file(data: bytes, says: str) -> None:
    """One line says what the file is, then which formats images may have."""
    error = decode(data, Preprocess(resize=8, crop=8)).error
    assert error is not None
    assert error.status == "decode_error"
    assert says in error.message
    assert error.message.endswith("images are JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, JPEG2000")
    assert "\n" not in error.message


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_an_avif_image_of_pillow_is_recognised() -> None:
    """It has to be converted."""
    assert kind_of(_written_by_pillow("AVIF")) == "the file is an AVIF image; convert it"


def test_a_compressed_tar_is_a_gzip_file(tmp_path: Path) -> None:
    """A compressed file is not unpacked to see what it holds."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    assert kind_of((tmp_path / "a.tar.gz").read_bytes()) == "the file is a gzip file; unpack it"
