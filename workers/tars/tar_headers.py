"""The headers of a tar: which images it holds, and whether it is whole.

Readers of tars drop things silently: everything after the first of two concatenated tars or after a damaged header,
links, `__meta__/`, members whose name has a second dot. Here every byte of the file is accounted for. Each member
with an image suffix is the image of one sample, or an error names it. Two things are left out and counted
(LeftOut): files that operating systems add (_SYSTEM_FILES, _SYSTEM_FOLDERS), and samples whose image has a suffix that
images.image does not name.

Loads no torch, so that the driver can count images. Not covered: reading the samples (shard_reader.py).
"""

import re
import struct
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import Images
from smoothcert.workers.storage.file_kinds import HEAD_BYTES, Group, known_kind

_BLOCK = tarfile.BLOCKSIZE
_READ_BYTES = 1 << 20
_SYSTEM_FILES = re.compile(
    r"\._.*|\.DS_Store|\.localized|Icon\r|Thumbs\.db|ehthumbs\.db|desktop\.ini|.*:Zone\.Identifier|~\$.*|\.directory",
    re.IGNORECASE,
)
_SYSTEM_FOLDERS = re.compile(
    r"__MACOSX|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd|\.TemporaryItems|\.DocumentRevisions-V100|"  # macOS
    r"Network Trash Folder|Temporary Items|"  # macOS, on network drives
    r"@eaDir|#recycle|#snapshot|\.@__thumb|"  # network drives
    r"\$RECYCLE\.BIN|System Volume Information|"  # Windows
    r"lost\+found|\.thumbnails|\.Trash-\d+|"  # Linux
    r"\.ipynb_checkpoints"  # Jupyter
)
IMAGE_SUFFIXES = {
    *("jpg", "jpeg", "jpe", "jif", "jfif", "png", "apng", "webp", "bmp", "dib", "gif", "tif", "tiff", "img"),
    *("avif", "avifs", "heic", "heif", "hif", "jxl", "jp2", "j2k", "jpf", "jpx", "ppm", "pgm", "pbm", "pnm", "pam"),
    *("tga", "ico", "qoi", "psd", "exr", "hdr", "dng", "cr2", "nef", "arw"),
}
# tarfile raises these for damaged headers: its own errors, and others if numbers in pax headers are damaged.
_DAMAGE = (
    tarfile.TarError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    EOFError,
    struct.error,
)
_REMEDIES: dict[Group | None, str] = {  # for a file that is not a tar
    "compressed": "decompress it (compressed tars are not read: rows point into the file)",
    "archive": "extract it, and pack a tar",
    "pointer": "run `git lfs pull` for the tar itself",
    "page": "fetch the tar itself",
    "parquet": "`smoothcert pack` makes tars of it",
    "readable": "pack images into a tar with `smoothcert pack`",
    "convert": "pack images into a tar with `smoothcert pack`",
}
_HIDDEN = re.compile(r"__[^/]*__(?:$|/)")  # names that webdataset skips


class ImageMember(NamedTuple):
    """One image: key and suffix of its name; offset and size of its bytes in the tar."""

    key: str
    suffix: str
    offset: int
    size: int


class _SampleName(NamedTuple):
    """The name of a sample's member, in two parts."""

    key: str
    suffix: str


@dataclass(frozen=True)
class LeftOut:
    """Counts of what is in the tars but not in the run. The counts of several tars can be added.

    Attributes:
        system_members: files that operating systems added.
        samples_without_image: samples with a label or with the suffix of some image format, but without an image that
            images.image names.
        suffixes_without_image: suffixes of the members of these samples.
    """

    system_members: int = 0
    samples_without_image: int = 0
    suffixes_without_image: frozenset[str] = frozenset()

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.system_members + other.system_members,
            self.samples_without_image + other.samples_without_image,
            self.suffixes_without_image | other.suffixes_without_image,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "system_members": self.system_members,
            "samples_without_image": self.samples_without_image,
            "suffixes_without_image": sorted(self.suffixes_without_image),
        }


class TarContents(NamedTuple):
    """What a tar holds: its images in order, and what is left out."""

    images: list[ImageMember]
    left_out: LeftOut


def read_tar(tar: Path, images: Images) -> TarContents:
    """Read the headers of a tar and account for every byte and every member.

    Args:
        tar: a local file.
        images: which members are images.
    Raises:
        ShardError: the tar is not whole, or not every image in it would become exactly one sample.
    """
    members = [member for member in _read_headers(tar) if not member.isdir()]
    own = [member for member in members if not is_system_member(member.name)]
    found = _images_of(own, images)
    left_out = list(_samples_without_image(own, images))
    return TarContents(found, LeftOut(len(members) - len(own), len(left_out), frozenset().union(*left_out)))


def is_system_member(name: str) -> bool:
    """Whether an operating system added this file, as macOS adds `._0001.jpg`."""
    *folders, base = name.split("/")
    return bool(_SYSTEM_FILES.fullmatch(base)) or any(_SYSTEM_FOLDERS.fullmatch(part) for part in [*folders, base])


def _images_of(members: Iterable[tarfile.TarInfo], images: Images) -> list[ImageMember]:
    """The image of each sample that has one, in tar order. Anything doubtful is a ShardError."""
    found: list[ImageMember] = []
    suffixes_of: dict[str, set[str]] = {}
    current_key: str | None = None
    for member in members:
        _require_plain_file(member)
        _require_no_stray_image(member, images)
        name = _sample_name(member.name)
        if name is None:
            continue
        _require_new_name(member, name, suffixes_of, current_key)
        current_key = name.key
        suffixes_of.setdefault(name.key, set()).add(name.suffix)
        if name.suffix in images.image:
            if found and found[-1].key == name.key:
                raise ShardError(f"sample {name.key} has two images, .{found[-1].suffix} and .{name.suffix}; keep one")
            found.append(ImageMember(name.key, name.suffix, member.offset_data, member.size))
    if not found:
        raise ShardError(
            f"holds no image: suffixes seen: {', '.join(sorted(set().union(*suffixes_of.values()))) or 'none'}; "
            f"images.image names: {', '.join(images.image)}"
        )
    return found


def _require_plain_file(member: tarfile.TarInfo) -> None:
    try:
        member.name.encode()
    except UnicodeEncodeError:  # tarfile keeps bytes that are not UTF-8 as surrogates
        raise ShardError(f"{member.name!r} is not a name in UTF-8; rename it") from None
    if not member.isreg() or member.issparse():
        raise ShardError(f"{member.name} is {_kind_of(member)}")


def _require_no_stray_image(member: tarfile.TarInfo, images: Images) -> None:
    """Refuse a member that ends in an image suffix but cannot be the image of a sample."""
    _, dot, last_suffix = member.name.rpartition(".")
    if not dot or last_suffix.lower() not in images.image:
        return
    name = _sample_name(member.name)
    if name is None or name.suffix not in images.image:
        raise ShardError(
            f"{member.name} ends in an image suffix but is not the image of a sample: a name is KEY.SUFFIX with one "
            "dot, outside folders like __meta__; rename it, or set images.image to the suffixes that count"
        )


def _require_new_name(
    member: tarfile.TarInfo, name: _SampleName, suffixes_of: Mapping[str, set[str]], current_key: str | None
) -> None:
    """Refuse a key whose members are not side by side, and a name that occurs twice."""
    if name.key != current_key and name.key in suffixes_of:
        raise ShardError(
            f"key {name.key} occurs twice, the second time with {member.name}; rename one, or put its members side by "
            "side"
        )
    if name.suffix in suffixes_of.get(name.key, ()):
        raise ShardError(f"{member.name} occurs twice; remove one")


def _samples_without_image(members: Iterable[tarfile.TarInfo], images: Images) -> Iterator[set[str]]:
    """The suffixes of each sample that seems to be an image but has no member named by images.image."""
    suffixes_of = defaultdict[str, set[str]](set)
    for member in members:
        if name := _sample_name(member.name):
            suffixes_of[name.key].add(name.suffix)
    for suffixes in suffixes_of.values():
        meant = images.label in suffixes or any(suffix.rpartition(".")[2] in IMAGE_SUFFIXES for suffix in suffixes)
        if meant and suffixes.isdisjoint(images.image):
            yield suffixes


def _kind_of(member: tarfile.TarInfo) -> str:
    """The kind of a member that is not a plain file, and what to do."""
    if member.issparse():
        return "stored as a sparse file; pack the tar again without --sparse"
    kinds = {
        tarfile.SYMTYPE: f"a link to {member.linkname}; pack its content instead (tar --dereference)",
        tarfile.LNKTYPE: f"a link to {member.linkname}; pack its content instead (tar --hard-dereference)",
        tarfile.CHRTYPE: "a special file (a device); leave it out of the tar",
        tarfile.BLKTYPE: "a special file (a device); leave it out of the tar",
        tarfile.FIFOTYPE: "a special file (a named pipe); leave it out of the tar",
        b"V": "the tar's volume label, not a file; pack the tar again without --label",
        b"M": "the rest of a file that another volume begins; pack one tar, without --multi-volume",
        b"D": "a folder listing of an incremental backup; pack the tar again without --incremental",
    }
    other = f"a member of unknown type {member.type.decode('latin-1')!r}, not a plain file; pack its content instead"
    return kinds.get(member.type, other)


def _sample_name(name: str) -> _SampleName | None:
    """Split a name at the first dot of its base name, as webdataset does; None for members that webdataset skips."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not (stem and dot) or _HIDDEN.match(name):
        return None
    return _SampleName(folder + slash + stem, suffix.lower())


def _read_headers(tar: Path) -> list[tarfile.TarInfo]:
    size = tar.stat().st_size
    if size == 0:
        raise ShardError("is empty (0 bytes); pack it again")
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(tar, mode="r:") as archive:
            members.extend(archive)  # keeps the members before an error
            end = archive.offset
    except _DAMAGE as error:
        if members and members[-1].offset_data + members[-1].size > size:
            raise ShardError(f"is truncated inside {members[-1].name}; copy or pack it again") from None
        other = None if members else _other_kind(tar)
        raise ShardError(other or f"is not a whole plain tar ({error}); copy or pack it again") from None
    _check_end(tar, end, size)
    if not members:
        raise ShardError("holds no members; pack it again")
    return members


def _other_kind(tar: Path) -> str | None:
    """What a file is instead of a tar, and what to do; None if that is not clear."""
    with tar.open("rb") as file:
        kind = known_kind(file.read(HEAD_BYTES))
    if kind is None or kind.group == "tar":  # a tar with a damaged header
        return None
    return f"is not a tar: the file is {kind.name}; {_REMEDIES.get(kind.group, 'fetch the tar again, or pack one')}"


def _check_end(tar: Path, end: int, size: int) -> None:
    """At `end`, where reading stopped, there must be two zero blocks and then only zeros up to the end of the file."""
    with tar.open("rb") as file:
        file.seek(end)
        if size - end < 2 * _BLOCK:
            raise ShardError(
                f"is truncated at byte {size}: the two zero blocks that end a tar are missing; copy or pack it again"
            )
        if any(file.read(_BLOCK)):
            raise ShardError(f"has a damaged header at byte {end}; copy or pack it again")
        position = end + _BLOCK
        while part := file.read(_READ_BYTES):
            if any(part):
                raise ShardError(
                    f"goes on after its end (byte {end}): more data follow from byte {position} on, perhaps a second "
                    "tar; pack them as one"
                )
            position += len(part)
