"""Files beside the tars of a job that are not read. Their names decide whether they are reported.

    01.tar.gz, 02.TAR           tars that cannot be read as they are: an error in a folder of tars
    03.tar.part, 04.zip, sub/   not read either: a notice
    README.md, labels.txt       what people keep beside their tars: never mentioned
    05.tar.txt, .06.tar.x3Fb    a name with `.tar` in it is mentioned, unless it is a checksum or a signature

Not covered: which tars a job means (shards.py).
"""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed

_COMPRESSED = re.compile(
    r"(?P<stem>.*)(?:\.tar\.(?P<kind>gz|bz2|xz|zst|lz4|lz|lzma|lzo|br|z)|\.t(?P<short>gz|bz2?|xz|zst|lz|az))", re.I
)
_UNPACKERS = {"gz": "gunzip", "bz2": "bunzip2", "bz": "bunzip2", "xz": "unxz", "zst": "unzstd"}
_TAR_WITHIN = re.compile(r"\.(?:tar|t(?:gz|bz2?|xz|zst))(?![a-z])", re.I)
# Checksums, signatures, and what a Mac keeps beside its files.
_NEVER_REPORTED = re.compile(r".*\.(?:md5|sha\d+|md5sums?|sha\d+sums?|crc|crc32|sfv|asc|sig|gpg)|\._.*", re.I)
_HARMLESS = re.compile(
    r".*\.(?:txt|md|rst|json|jsonl|ya?ml|toml|xml|csv|tsv|html?|pdf|log|cls|names|idx|index|py|sh|ipynb|lock"
    r"|torrent|pt|pth|ckpt|safetensors)"
    r"|(?:readme|licen[sc]e|copying|notice|changelog|changes|manifest|authors|citation|version|makefile)(?:[-_.].*)?"
    r"|(?:md5|sha\d*|b2|ck)sums?|checksums?|_success|thumbs\.db|\..*",  # a hidden file
    re.I,
)


def is_tar(name: str) -> bool:
    """Whether a file of a folder is one of its shards; `._NAME` is what a Mac keeps beside NAME."""
    return name.endswith(".tar") and not name.startswith("._")


def is_passed_over(name: str) -> bool:
    """Whether a file beside the tars is not a tar but may belong to the data."""
    if is_tar(name) or _NEVER_REPORTED.fullmatch(name):
        return False
    return _TAR_WITHIN.search(name) is not None or not _HARMLESS.fullmatch(name)


def is_misnamed(name: str, pattern: str) -> bool:
    """Whether a pattern would match the file if case did not matter and its name ended with `.tar`."""
    plain = readable_name(name) or re.sub(r"(\.tar)\W.*", r"\1", name, flags=re.I)
    wanted = is_tar(name) or is_passed_over(name)
    return wanted and fnmatch.fnmatchcase(plain.lower(), pattern.lower())


def readable_name(name: str) -> str | None:
    """The name that a compressed or oddly written tar would have if it could be read; None for other files."""
    if name.startswith("."):
        return None
    if match := _COMPRESSED.fullmatch(name):
        return f"{match['stem']}.tar"
    if name.lower().endswith(".tar") and not name.endswith(".tar"):
        return f"{name[:-4]}.tar"
    return None


def refuse_unreadable(folder: str, files: Sequence[str], folders: Sequence[str]) -> None:
    """Refuse a folder of which tars would be left out: half of a data set is no answer.

    Args:
        folder: with a slash at the end.
        files, folders: base names of what it holds.
    Raises:
        RequestError: the folder holds no tar, or one that cannot be read as it is.
    """
    unread = [name for name in files if (readable := readable_name(name)) and readable not in files]
    if not any(map(is_tar, files)):
        remedy = make_tars_of(unread) if unread else "name a folder that holds tars"
        raise RequestError(f"images.shards: {folder} {_without_tars(files, folders)}; {remedy}")
    if unread:
        raise RequestError(
            f"images.shards: {folder} holds tars that cannot be read in place: {_with_remedies(unread)}; do so, or "
            f"leave them out with images.shards: {folder}*.tar"
        )


def make_tars_of(names: Iterable[str]) -> str:
    """What to do with compressed and oddly written tars."""
    return f"make tars of them: {_with_remedies(names)}"


def _with_remedies(names: Iterable[str]) -> str:
    return listed(f"{name} ({_remedy(name)})" for name in names)


def _remedy(name: str) -> str:
    if match := _COMPRESSED.fullmatch(name):
        tool = _UNPACKERS.get((match["kind"] or match["short"]).lower())
        return f"unpack it with `{tool}`" if tool else "unpack it"
    return f"rename it to {readable_name(name)}"


def _without_tars(files: Sequence[str], folders: Sequence[str]) -> str:
    """What a folder without tars holds."""
    if not files and not folders:
        return "is empty"
    counts = [
        f"{len(names):,} {kind}{'s' * (len(names) > 1)}"
        for names, kind in ((files, "file"), (folders, "folder"))
        if names
    ]
    return f"holds {' and '.join(counts)} but no *.tar: {listed([*files, *(f'{name}/' for name in folders)])}"


def closest(wanted: str, names: Iterable[str]) -> list[str]:
    """The names that a misspelt one may mean; all names if none is close."""
    by_lower = {name.lower(): name for name in names if not name.startswith(".")}
    close = difflib.get_close_matches(wanted.lower(), by_lower, n=3, cutoff=0.6)
    return [by_lower[name] for name in close] or list(by_lower.values())
