"""Index files: which tars a data set has, in which splits, and how many images each holds.

    _info.json     {"splits": {NAME: {"filenames": [...], "shard_lengths": [...]}}}, as timm and hubs write it
    index.json     {"shardlist": [{"url": ..., "nsamples": ...}]}, wids; or "datasets", each with a name and such a list
                   `smoothcert pack` writes one with the names of the classes, too (pipeline/pack/records.py)

Relative names start from the index file. Not covered: whether the tars are there (shards.py).
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.locations import READ_ONLY, beside
from smoothcert.manifests.names import printable

PACK_INDEX, PACKING = "index.json", ".packing"
"""What `smoothcert pack` writes beside its tars: the index, and until then a folder."""


class Member(NamedTuple):
    """A tar, its number of images and its size, each if the index lists it."""

    url: str
    images: int | None
    size: int | None = None


class Index(NamedTuple):
    """What an index file says.

    Attributes:
        members: the tars of the chosen split.
        all_urls: the tars of every split.
    """

    members: list[Member]
    all_urls: set[str]


def classes_by_pack(data: bytes) -> list[str] | None:
    """The names of the classes in an index that `smoothcert pack` wrote, "" for those without; None of another file."""
    try:
        index = json.loads(data)
        if not isinstance(index["packed"], dict):
            return None
        names = index["classes"] or [""] * len(index["images_of_class"])
        return [str(name) for name in names]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_index(url: str, data: bytes, split: str | None) -> Index:
    """Read an index file.

    Args:
        url: of the file.
        data: its content.
        split: the split to choose; None if there is only one.
    Raises:
        RequestError: the file is not an index, lists no tars, or has no such split.
    """
    try:
        index = json.loads(data)
    except (ValueError, RecursionError):
        raise RequestError(f"images.shards: {url} is no index of tars: {_no_json(data)}; fetch it again") from None
    try:
        members = [Member(_url_of(name, url), images, size) for name, images, size in _members(index, split)]
        all_urls = {_url_of(name, url) for name in _all_names(index)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"it has no {printable(error.args[0])!r}" if isinstance(error, KeyError) else "its parts do not fit"
        raise RequestError(
            f"images.shards: {url} is no index of tars: {wrong}; expected timm's _info.json with `splits`, each with "
            "`filenames` (and as many `shard_lengths`), or a wids index with `shardlist`, each with `url`"
        ) from None
    except RequestError as error:
        raise RequestError(f"images.{error}; index file: {url}") from None
    if not members:
        raise RequestError(f"images.shards: {url} lists no tars")
    return Index(members, all_urls)


def _url_of(name: str, index: str) -> str:
    """The URL of a tar that an index names. One on a server must not lead to files of this machine."""
    scheme = index.partition("://")[0].lower()
    if scheme in READ_ONLY and name.lower().startswith(("/", "file:")):
        raise RequestError(
            f"shards: {printable(name)} is a path on one machine, and {scheme}:// is read from others; name the tar "
            "by a URL or relative to the index"
        )
    return beside(index, name)


def _no_json(data: bytes) -> str:
    if not data.strip():
        return "it is empty"
    begins = " ".join(data[:200].decode(errors="replace").split())[:20]
    return f"it is not valid JSON, and begins with `{printable(begins)}`"


def _members(index: dict[str, Any], split: str | None) -> Iterator[tuple[str, int | None, int | None]]:
    """(file name, number of images or None, size or None) for each tar of the chosen split."""
    if "splits" in index:
        chosen = index["splits"][_choose(split, list(index["splits"]))]
        names = chosen["filenames"]
        counts = chosen.get("shard_lengths") or [None] * len(names)
        yield from ((name, count, None) for name, count in zip(names, counts, strict=True))
        return
    if "datasets" in index:
        by_name = {dataset["name"]: dataset for dataset in index["datasets"]}
        index = by_name[_choose(split, list(by_name))]
    for member in index["shardlist"]:
        yield member["url"], member.get("nsamples"), member.get("filesize") if "packed" in index else None


def _all_names(index: dict[str, Any]) -> Iterator[str]:
    for chosen in index.get("splits", {}).values():
        yield from chosen["filenames"]
    for part in index.get("datasets", [index]):
        yield from (member["url"] for member in part.get("shardlist", ()))


def _choose(split: str | None, known: list[str]) -> str:
    if split is None and len(known) == 1:
        return known[0]
    if split not in known:
        found = "not named" if split is None else f"{split!r} is not there"
        raise RequestError(f"split: {found}; one of: {', '.join(known)}")
    return split
