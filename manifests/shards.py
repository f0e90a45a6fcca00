"""Which tars a job means, in which order.

`images.shards` may be a path, a folder, a glob or brace pattern, an index file, or a list of these:

    data/                         every *.tar in it, by name; its _info.json where it has one
    data/val-{00..63}.tar         as bash expands it
    data/val-*.tar                by name
    data/_info.json               as timm and datasets on hubs carry it: splits of files
    data/index.json               a wids index: {"shardlist": [{"url": ..., "nsamples": ...}]}

Relative names in an index start from the index file. Not covered: what is in a tar (workers/shard_reader.py).
"""

import fnmatch
import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import braceexpand

from manifests.errors import RequestError
from manifests.job import Images


@dataclass(frozen=True)
class Shard:
    """One tar.

    Attributes:
        name: base name; rows pair across runs by (shard name, key).
        url: path or URL.
        size: in bytes.
        fingerprint: changes when the content may have changed: an ETag, or path and modification time.
        images: number of images where an index file tells it.
    """

    name: str
    url: str
    size: int
    fingerprint: str
    images: int | None = None


@dataclass(frozen=True)
class FileEntry:
    """A file as a listing shows it; `fingerprint` as in Shard, `modified` in seconds since 1970."""

    url: str
    size: int
    fingerprint: str
    modified: float = 0.0


class Files(Protocol):
    """What finding shards needs of a store."""

    def find(self, url: str) -> FileEntry | None: ...
    def files(self, folder: str) -> list[FileEntry]: ...
    def read(self, url: str) -> bytes: ...


def find_shards(images: Images, files: Files) -> tuple[Shard, ...]:
    """The tars of a job in order.

    Raises:
        RequestError: nothing matches, a named file is missing, a base name comes twice, a split is not named.
    """
    specs = (images.shards,) if isinstance(images.shards, str) else images.shards
    if images.split is not None and not any(_index_of(spec, files) for spec in specs):
        raise RequestError(
            f"images.split: {images.split!r} needs an index file in images.shards; name one, or use null"
        )
    shards = tuple(shard for spec in specs for shard in _expand(spec, images.split, files))
    names = [shard.name for shard in shards]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RequestError(
            f"images.shards: {len(twice)} base names come twice, such as {twice[0]}: rows pair across runs "
            "by shard name and key; rename the files or certify the folders as two jobs"
        )
    return shards


def _expand(spec: str, split: str | None, files: Files) -> Iterator[Shard]:
    if "{" in spec:
        try:
            urls = list(braceexpand.braceexpand(spec))
        except ValueError as error:
            raise RequestError(f"images.shards: {spec}: {error}; close every brace") from None
        yield from _shards(urls, files, wanted_by=spec)
    elif any(wildcard in spec for wildcard in "*?["):
        yield from _glob(spec, files)
    elif index := _index_of(spec, files):
        yield from _read_index(index, split, files)
    elif entry := files.find(spec):
        yield _as_shard(entry)
    else:
        yield from _list_folder(spec, files)


def _index_of(spec: str, files: Files) -> str | None:
    """The index file that `spec` is, or that lies in the folder `spec`."""
    if spec.endswith(".json"):
        return spec
    inside = posixpath.join(spec, "_info.json")
    return inside if files.find(inside) else None


def _shards(urls: Sequence[str], files: Files, *, wanted_by: str) -> Iterator[Shard]:
    """The tars at these URLs. Folders are listed whole: one call tells of a thousand objects."""
    folders = {posixpath.dirname(url) for url in urls}
    known = {entry.url: entry for folder in folders for entry in files.files(folder)}
    for url in urls:
        entry = known.get(url) or files.find(url)
        if entry is None:
            source = "" if url == wanted_by else f" (named by {wanted_by})"
            raise RequestError(f"images.shards: {url} does not exist{source}; correct the name or restore the file")
        yield _as_shard(entry)


def _as_shard(entry: FileEntry) -> Shard:
    return Shard(posixpath.basename(entry.url), entry.url, entry.size, entry.fingerprint)


def _glob(pattern: str, files: Files) -> Iterator[Shard]:
    folder, name = posixpath.split(pattern)
    if any(wildcard in folder for wildcard in "*?["):
        raise RequestError(f"images.shards: {pattern}: only the file name may hold *, ? or [; name one folder")
    matches = [entry for entry in files.files(folder) if fnmatch.fnmatchcase(posixpath.basename(entry.url), name)]
    if not matches:
        raise RequestError(f"images.shards: {pattern} matches nothing; correct the pattern")
    yield from (_as_shard(entry) for entry in matches)


def _list_folder(folder: str, files: Files) -> Iterator[Shard]:
    tars = [entry for entry in files.files(folder) if entry.url.endswith(".tar")]
    if not tars:
        raise RequestError(f"images.shards: {folder}: no such file, and no *.tar in a folder of that name")
    yield from (_as_shard(entry) for entry in tars)


def _read_index(url: str, split: str | None, files: Files) -> Iterator[Shard]:
    if files.find(url) is None:
        raise RequestError(f"images.shards: {url} does not exist; correct the name of the index file")
    try:
        members = list(_index_members(json.loads(files.read(url)), split))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"images.shards: {url} is no index of tars ({error!r}); expected timm's _info.json "
            "with `splits`, or a wids index with `shardlist`"
        ) from None
    except RequestError as error:
        raise RequestError(f"images.{error}; index file: {url}") from None
    if not members:
        raise RequestError(f"images.shards: {url} lists no tars")
    urls = [name if "://" in name else posixpath.join(posixpath.dirname(url), name) for name, _ in members]
    for shard, (_, images) in zip(_shards(urls, files, wanted_by=url), members, strict=True):
        yield replace(shard, images=images)


def _index_members(index: dict[str, Any], split: str | None) -> Iterator[tuple[str, int | None]]:
    """(file name, number of images or None) of an index file's chosen split."""
    if "splits" in index:
        chosen = index["splits"][_choose(split, list(index["splits"]))]
        names = chosen["filenames"]
        counts = chosen.get("shard_lengths") or [None] * len(names)
        yield from zip(names, counts, strict=True)
        return
    if "datasets" in index:
        by_name = {dataset["name"]: dataset for dataset in index["datasets"]}
        index = by_name[_choose(split, list(by_name))]
    for member in index["shardlist"]:
        yield member["url"], member.get("nsamples")


def _choose(split: str | None, known: list[str]) -> str:
    if split is None and len(known) == 1:
        return known[0]
    if split not in known:
        found = "not named" if split is None else f"{split!r} is not there"
        raise RequestError(f"split: {found}; one of: {', '.join(known)}")
    return split
