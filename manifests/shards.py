"""Which tars a job means, in which order.

`images.shards` may be a path, a folder, a glob or brace pattern, an index file, or a list of these:

    data/                         every *.tar in it, by name; or its _info.json, if it has one, or that of `pack`
    data/val-{00..63}.tar         as bash expands it
    data/val-*.tar                by name
    data/_info.json               as timm and dataset hubs write it: splits of files
    data/index.json               a wids index: {"shardlist": [{"url": ..., "nsamples": ...}]}

A name that exists is taken literally, even if it has special characters. Only the part after the existing folders is a
pattern. Relative names in an index start from the index file. A web server lists no folders: there, only braces are a
pattern, and a folder needs an index.

Not covered: what is in a tar (workers/tars/shard_reader.py), which unread files are reported (skipped.py).
"""

import fnmatch
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import braceexpand

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.files import FileEntry, Files, Listing
from smoothcert.manifests.index_file import PACK_INDEX, PACKING, classes_by_pack, read_index
from smoothcert.manifests.job import Images
from smoothcert.manifests.locations import is_web, name_of, recorded_url, split_url
from smoothcert.manifests.names import listed
from smoothcert.manifests.skipped import (
    closest,
    is_misnamed,
    is_passed_over,
    is_tar,
    make_tars_of,
    readable_name,
    refuse_unreadable,
)

_WILDCARD, _SPECIAL = re.compile(r"[*?[]"), re.compile(r"[*?[{]")
_REMEDY = "unpack or rename what belongs to the data, and list its folders in images.shards"
_MAX_NAMES_FOR_HINT = 1000  # names that an error searches for likely ones
_REQUESTS_AT_ONCE = 16
_MAX_FOLDERS, _MAX_SUBFOLDERS = 20, 5  # folders that are searched for tars, and folders in each of them


@dataclass(frozen=True)
class Shard:
    """One tar.

    Attributes:
        name: base name; rows pair across runs by (shard name, key).
        url: path or URL.
        size: in bytes.
        fingerprint: changes when the content may have changed: an ETag, or path and modification time.
        images: number of images if an index file lists it.
    """

    name: str
    url: str
    size: int
    fingerprint: str
    images: int | None = None


class Found(NamedTuple):
    """The tars of a job.

    Attributes:
        shards: in order.
        classes: their names by the indexes that `smoothcert pack` wrote beside the tars, "" for one without; empty
            unless every folder has an index, all with the same classes.
    """

    shards: tuple[Shard, ...]
    classes: list[str]


def find_shards(images: Images, files: Files, notify: Callable[[str], object] = str) -> tuple[Shard, ...]:
    """The tars of a job in order; arguments and errors as for `find_shards_and_classes`."""
    return find_shards_and_classes(images, files, notify).shards


def find_shards_and_classes(images: Images, files: Files, notify: Callable[[str], object] = str) -> Found:
    """The tars of a job, and the classes of which they say the names.

    Args:
        images: the section of the job.
        files: the store that holds the tars.
        notify: is called with a line for each place that holds unread files which may belong to the data.
    Raises:
        RequestError: nothing matches, a named file is missing, a folder holds tars that cannot be read, a base name
            occurs twice, a split is not named.
    """
    specs = (images.shards,) if isinstance(images.shards, str) else images.shards
    search = _Search(files, images.split)
    shards = tuple(shard for spec in specs for shard in search.expand(spec))
    if images.split is not None and not search.indexed:
        raise RequestError(
            f"images.split: {images.split!r} needs an index file in images.shards; name one, or use null"
        )
    _refuse_names([shard.name for shard in shards])
    for line in search.notices([*specs, *(shard.url for shard in shards)]):
        notify(line)
    return Found(shards, search.classes(shards))


def _refuse_unfinished(listing: Listing) -> None:
    """Refuse a folder whose packing has not ended."""
    for url in listing.folders:
        if name_of(url) == PACKING:
            raise RequestError(
                f"images.shards: {posixpath.dirname(url)}/ is not packed to its end; run the same `smoothcert pack` "
                "command again, then this one"
            )


def _refuse_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RequestError(
            f"images.shards: {len(twice)} base names come twice, such as {twice[0]}: rows pair across runs "
            "by shard name and key; rename the files or certify the folders as two jobs"
        )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise RequestError(f"images.shards: {name!a}: the name is no UTF-8; rename the file") from None


class _PassedOver(NamedTuple):
    """Unread files and folders that may belong to the data. The URL of a folder ends with a slash."""

    where: str
    urls: list[str]
    remedy: str


class _Search:
    """One search for tars. It remembers what it listed and what it passed over."""

    def __init__(self, files: Files, split: str | None) -> None:
        self._files, self._split = files, split
        self._listings: dict[str, Listing | SmoothcertError | None] = {}
        self._known: dict[str, FileEntry] = {}
        self._passed_over: list[_PassedOver] = []
        self.indexed = False

    def expand(self, spec: str) -> Iterator[Shard]:
        """The tars of a spec."""
        if is_web(spec) and "*" in recorded_url(spec):
            raise RequestError(
                f"images.shards: {spec}: a web server lists no folders, so * finds nothing; use braces, such as "
                "{00..63}, or name an index file"
            )
        spec = self._files.pinned(spec)
        folder, pattern = self._split_literal(spec)
        if not pattern:
            yield from self._existing(spec, named_by=spec)
            return
        try:
            names = list(braceexpand.braceexpand(pattern)) if "{" in pattern else [pattern]
        except ValueError as error:
            raise RequestError(f"images.shards: {spec}: {error}; close every brace") from None
        self._ask_for(folder + name for name in names)
        for name in names:
            if _WILDCARD.search(name) and not is_web(folder):
                yield from self._glob(folder, name)
            else:
                yield from self._existing(folder + name, named_by=spec)

    def notices(self, used: Collection[str]) -> Iterator[str]:
        """A line for each place where files were passed over, unless the job uses them elsewhere."""
        known = {parent for url in used for parent in _with_parents(url.rstrip("/"))}
        for where, urls, remedy in self._passed_over:
            if left := [url for url in urls if url.rstrip("/") not in known]:
                yield f"images.shards: {where} {listed(map(name_of, left))}; {remedy}"

    def classes(self, shards: Sequence[Shard]) -> list[str]:
        """The names of the classes as the indexes of `smoothcert pack` give them; see Found."""
        found = [self._classes_in(folder) for folder in sorted({posixpath.dirname(shard.url) for shard in shards})]
        return found[0] if found and found[0] and all(names == found[0] for names in found) else []

    def _classes_in(self, folder: str) -> list[str] | None:
        url = posixpath.join(folder, PACK_INDEX)
        listing = self._listings.get(folder)
        with suppress(SmoothcertError):  # some stores let users read files but not ask for others
            is_there = url in _urls(listing) if isinstance(listing, Listing) else self._files.find(url) is not None
            return classes_by_pack(self._files.read(url)) if is_there else None
        return None

    def _split_literal(self, spec: str) -> tuple[str, str]:
        """The part of a spec that exists, and the pattern behind it, which is empty if all is literal."""
        special = re.search("{", spec) if is_web(spec) else _SPECIAL.search(spec)  # ? begins a query
        if special is None:
            return spec, ""
        start = spec.rfind("/", 0, special.start()) + 1
        folder, pattern = spec[:start], spec[start:]
        while "/" in pattern:
            name, _, deeper = pattern.partition("/")
            if not self._exists(folder + name):
                return folder, pattern
            folder, pattern = f"{folder}{name}/", deeper
        there = {name_of(url) for url in _urls(self._list_if_allowed(folder))}
        return (spec, "") if pattern in there or not _SPECIAL.search(pattern) else (folder, pattern)

    def _list(self, folder: str) -> Listing | None:
        """List a folder once and completely: one call returns a thousand objects."""
        folder = folder if folder.endswith("://") else folder.rstrip("/") or folder[:1]
        if folder not in self._listings:
            try:
                self._listings[folder] = listing = self._files.listing(folder)
                self._known |= {entry.url: entry for entry in listing.files} if listing else {}
            except SmoothcertError as error:
                self._listings[folder] = error
        found = self._listings[folder]
        if isinstance(found, SmoothcertError):
            raise found
        return found

    def _exists(self, folder: str) -> bool:
        with suppress(RequestError):
            return self._files.listing(folder, most=1) is not None
        return False

    def _list_if_allowed(self, folder: str) -> Listing | None:
        """List a folder, or return None: some stores let users read files but not list them."""
        with suppress(RequestError):
            return self._list(folder)
        return None

    def _existing(self, url: str, *, named_by: str) -> Iterator[Shard]:
        """The tars of the file or folder of exactly this name."""
        entry = None if url.endswith("/") else self._find(url, named_by=named_by)
        if entry is not None:
            yield from self._read_index(url) if url.endswith(".json") else [_as_shard(entry)]
            return
        if is_web(url) and _seems_a_pattern(url):
            raise RequestError(
                f"images.shards: {url} does not exist; on a web server, ? and [ are no wildcards: use braces, such as "
                "{00..63}"
            )
        if is_web(url) and name_of(url).endswith((".tar", ".json")):  # it is not searched as a folder
            raise self._missing(url, named_by=named_by)
        listing = self._list(url)
        if listing is None:
            raise self._missing(url, named_by=named_by)
        index = next((entry.url for entry in listing.files if name_of(entry.url) == "_info.json"), None)
        index = index or self._index_of_pack(listing)
        yield from self._tars_of(url, listing) if index is None else self._read_index(index)

    def _index_of_pack(self, listing: Listing) -> str | None:
        """The index that `smoothcert pack` wrote, if the folder has one."""
        found = [entry.url for entry in listing.files if name_of(entry.url) == PACK_INDEX]
        if found and classes_by_pack(self._files.read(found[0])) is not None:
            return found[0]
        _refuse_unfinished(listing)
        return None

    def _ask_for(self, urls: Iterable[str]) -> None:
        """Ask web servers, which list no folders, for many files at once."""
        unknown = [url for url in urls if is_web(url)]
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as requests:
            self._known |= {entry.url: entry for entry in requests.map(self._files.find, unknown) if entry is not None}

    def _find(self, url: str, *, named_by: str) -> FileEntry | None:
        if url != named_by:  # one of many
            self._list_if_allowed(posixpath.dirname(url))
        return self._known.get(url) or self._files.find(url)

    def _tars_of(self, folder: str, listing: Listing) -> Iterator[Shard]:
        folder = f"{folder.rstrip('/')}/"
        _refuse_broken(url for url in listing.broken if is_tar(name_of(url)))
        refuse_unreadable(folder, [name_of(entry.url) for entry in listing.files], [*map(name_of, listing.folders)])
        tars = [entry for entry in listing.files if is_tar(name_of(entry.url))]
        others = [entry.url for entry in listing.files if is_passed_over(name_of(entry.url))]
        others += [f"{url}/" for url in _visible(listing.folders)[:_MAX_FOLDERS] if self._holds_tars(url)]
        self._passed_over.append(_PassedOver(f"{folder} also holds what is not read:", others, _REMEDY))
        yield from map(_as_shard, tars)

    def _holds_tars(self, folder: str, levels: int = 2) -> bool:
        """Whether a folder is named like a tar, or holds a tar at most `levels` deep."""
        if is_tar(name_of(folder)) or levels == 0:
            return is_tar(name_of(folder))
        try:
            listing = self._files.listing(folder, most=_MAX_NAMES_FOR_HINT) or Listing([], [], [])
        except SmoothcertError:  # it may be private, and the job does not name it
            return False
        if any(is_tar(name_of(one.url)) or readable_name(name_of(one.url)) for one in listing.files):
            return True
        return any(self._holds_tars(url, levels - 1) for url in _visible(listing.folders)[:_MAX_SUBFOLDERS])

    def _glob(self, folder: str, pattern: str) -> Iterator[Shard]:
        deeper, name = posixpath.split(pattern)
        if _WILDCARD.search(deeper):
            raise RequestError(
                f"images.shards: {folder}{pattern} does not exist; *, ? and [ are wildcards only in the file name; "
                f"{instead_of(folder + pattern, self._files)}"
            )
        listing = self._list(posixpath.join(folder, deeper)) or Listing([], [], [])
        there = [url for url in _urls(listing) if is_tar(name_of(url)) or not name_of(url).startswith("._")]
        matches = {url for url in there if fnmatch.fnmatchcase(name_of(url), name)}
        if not any(name_of(entry.url) == PACK_INDEX for entry in listing.files):
            _refuse_unfinished(listing)
        _refuse_broken(url for url in listing.broken if fnmatch.fnmatchcase(name_of(url), name))
        shards = [_as_shard(entry) for entry in listing.files if entry.url in matches]
        if not shards:
            remedy = instead_of(folder + pattern, self._files)
            raise RequestError(f"images.shards: {folder}{pattern} matches nothing; {remedy}")
        similar = [url for url in there if url not in matches and is_misnamed(name_of(url), name)]
        similar += [f"{url}/" for url in listing.folders if url in matches]
        self._passed_over.append(_PassedOver(f"{folder}{pattern} leaves out", similar, _REMEDY))
        yield from shards

    def _read_index(self, url: str) -> Iterator[Shard]:
        self.indexed = True
        index = read_index(url, self._files.read(url), self._split)
        self._ask_for(member.url for member in index.members)
        for member in index.members:
            entry = self._find(member.url, named_by=url)
            if entry is None:
                raise self._missing(member.url, named_by=url)
            if member.size not in (None, entry.size):
                raise RequestError(
                    f"images.shards: {member.url} has {entry.size:,} bytes, but {url} says {member.size:,}; copy it "
                    "again"
                )
            yield replace(_as_shard(entry), images=member.images)
        folders = sorted({posixpath.dirname(member.url) for member in index.members})
        beside = [
            one for folder in folders for one in _urls(self._list_if_allowed(folder)) if one not in index.all_urls
        ]
        unlisted = [one for one in beside if is_tar(name_of(one)) or readable_name(name_of(one))]
        self._passed_over.append(_PassedOver(f"{url} does not list", unlisted, "add what belongs to the data"))

    def _missing(self, url: str, *, named_by: str) -> RequestError:
        source = "" if url == named_by else f" (named by {named_by})"
        return RequestError(f"images.shards: {url} does not exist{source}; {instead_of(url, self._files)}")


def instead_of(url: str, files: Files) -> str:
    """What to do about a file, folder or pattern that leads to nothing; names what is there instead."""
    folder, name = posixpath.split(url.rstrip("/"))
    try:
        while (listing := files.listing(folder, most=_MAX_NAMES_FOR_HINT)) is None and name_of(folder):
            folder, name = posixpath.split(folder)
    except SmoothcertError:  # the error is about something else
        listing = None
    there, place = [name_of(one) for one in _urls(listing)], f"{folder.rstrip('/')}/" if folder else "./"
    if unread := [one for one in there if _would_match(readable_name(one), name)]:
        return f"{place} holds what cannot be read in place; {make_tars_of(unread)}"
    names = closest(name, there)
    return f"{place} holds {listed(names)}; correct the name" if names else "correct the name"


def _seems_a_pattern(url: str) -> bool:
    """Whether a URL of a web server has [ in its path, or a ? that begins no query of KEY=VALUE."""
    parts = split_url(url)
    return "[" in parts.path or ("?" in url and "=" not in parts.query)


def _would_match(name: str | None, pattern: str) -> bool:
    return name is not None and (name == pattern or fnmatch.fnmatchcase(name, pattern))


def _visible(folders: Iterable[str]) -> list[str]:
    return [url for url in folders if not name_of(url).startswith((".", "__MACOSX"))]


def _refuse_broken(urls: Iterable[str]) -> None:
    if broken := list(urls):
        raise RequestError(f"images.shards: {listed(broken)} leads to nothing; restore the file, or remove the link")


def _with_parents(url: str) -> Iterator[str]:
    while url and not url.endswith(":"):
        yield url
        url = posixpath.dirname(url) if posixpath.dirname(url) != url else ""


def _as_shard(entry: FileEntry) -> Shard:
    return Shard(name_of(entry.url), entry.url, entry.size, entry.fingerprint)


def _urls(listing: Listing | None) -> list[str]:
    return [] if listing is None else [*(entry.url for entry in listing.files), *listing.folders]
