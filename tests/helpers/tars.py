"""Tars made in memory, member by member, and small image files to put into them."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from smoothcert.manifests.job import Images


def png(width: int = 8, height: int = 8, seed: int = 0) -> bytes:
    """A small PNG of noise; another seed is another image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """Header and content of one member, padded to whole blocks."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content)
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def tar_of(members: Iterable[tuple[str, bytes]], *, padded: bool = True) -> bytes:
    """A whole tar of plain members; `padded` fills it to tar's usual record of 20 blocks."""
    return closed(b"".join(member(name, content) for name, content in members), padded=padded)


def closed(members: bytes, *, padded: bool = True) -> bytes:
    """The members with the two zero blocks that end a tar."""
    whole = members + bytes(2 * tarfile.BLOCKSIZE)
    return whole + bytes(-len(whole) % tarfile.RECORDSIZE) if padded else whole


def labelled(samples: int, *, label: str = "0") -> list[tuple[str, bytes]]:
    """Members 0000.png, 0000.cls, 0001.png, ..."""
    return [
        part
        for index in range(samples)
        for part in ((f"{index:04d}.png", png(seed=index)), (f"{index:04d}.cls", label.encode()))
    ]


def write_tar(folder: Path, content: bytes, name: str = "shard.tar") -> Path:
    """Put bytes into a file and give its path."""
    path = folder / name
    path.write_bytes(content)
    return path


def images_field(**fields: object) -> Images:
    """The `images` part of a job; its shards are never looked at here."""
    return Images.model_validate({"shards": "unused"} | fields)
