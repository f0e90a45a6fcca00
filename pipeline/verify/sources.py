"""Where a replay finds the tars and the checkpoint of a run: where run.json says, or where the receiver keeps them.

Who received a run has its tars and its checkpoint in other places. A tar is found by its base name and its size, in a
folder and all folders below (of a web server, in that folder alone). Of several such files the one with the recorded
SHA-256 is taken.

Not covered: whether a tar or checkpoint is the run's (replay.py compares hashes).
"""

import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.files import FileEntry
from smoothcert.manifests.locations import beside, is_web
from smoothcert.manifests.names import listed
from smoothcert.manifests.shards import instead_of
from smoothcert.manifests.skipped import is_tar
from smoothcert.pipeline.verify.record import CheckedRun
from smoothcert.workers.networks.checkpoint_files import in_folder
from smoothcert.workers.storage.store import Store, sha256_of


class LocalTar(NamedTuple):
    """A tar as a local file."""

    path: Path
    sha256: str


class _Tree(NamedTuple):
    """The tars, by base name, in a folder and all folders below, and the folders that could not be listed."""

    tars: dict[str, list[FileEntry]]
    unread: list[str]


def recorded_tars(run: CheckedRun, names: Iterable[str], store: Store) -> dict[str, list[str]]:
    """The tars where run.json says they are.

    Args:
        run: the run.
        names: of files of votes.
        store: holds the tars.
    Returns:
        By file of votes, a list of one URL.
    Raises:
        RequestError: a tar is not there.
    """
    urls = {name: run.shards[name].url for name in names}
    for url in urls.values():
        if store.find(url) is None:
            remedy = "restore it, name the folder that holds it now (--images), or leave --replay out"
            raise RequestError(f"{url} is gone, so votes cannot be replayed; {remedy}")
    return {name: [url] for name, url in urls.items()}


def tars_below(run: CheckedRun, names: Iterable[str], folder: str, store: Store) -> dict[str, list[str]]:
    """The files in a folder, and in all folders below, that may be tars of the run: base name and size are theirs.

    Args:
        run: the run.
        names: of files of votes.
        folder: where to look.
        store: holds the folder.
    Returns:
        By file of votes, the URLs of one or several files.
    Raises:
        RequestError: there is no such folder, or it lacks a tar.
    """
    shards = {name: run.shards[name] for name in names}
    tree = _tree(folder, {shard.name for shard in shards.values()}, store)
    found = {
        name: [entry.url for entry in tree.tars.get(shard.name, ()) if entry.size == shard.size]
        for name, shard in shards.items()
    }
    if missing := [shards[name] for name, urls in found.items() if not urls]:
        first = missing[0]
        others = f" (nor {len(missing) - 1:,} more of {len(shards):,} tars to replay)" if len(missing) > 1 else ""
        there = _instead(tree, first.name)
        unread = f", and {listed(tree.unread)} cannot be read" if tree.unread else ""
        raise RequestError(
            f"--images: {folder} has no {first.name} of {first.size:,} bytes{others}; {there}{unread}; name the folder "
            "that holds the tars of the run"
        )
    return found


def _instead(tree: _Tree, name: str) -> str:
    """What is there instead of a tar."""
    if namesakes := tree.tars.get(name):
        more = f" ({len(namesakes):,} files have that name and another size)" if len(namesakes) > 1 else ""
        return f"{namesakes[0].url} has {namesakes[0].size:,} bytes{more}"
    return f"it holds {listed(sorted(tree.tars))}" if tree.tars else "it holds no tar"


def _tree(folder: str, wanted: Collection[str], store: Store) -> _Tree:
    if is_web(folder):  # its server lists nothing, but knows whether a file is there
        urls = {name: beside(f"{folder.rstrip('/')}/", name) for name in sorted(wanted)}
        return _Tree({name: [entry] for name, url in urls.items() if (entry := store.find(url))}, [])
    tree, seen, todo = _Tree({}, []), set[str](), [folder]
    while todo:
        here = todo.pop()
        real = here if "://" in here else os.path.realpath(here)
        if real in seen:  # a link leads back
            continue
        seen.add(real)
        try:
            listing = store.listing(here)
        except RequestError:
            if here == folder:
                raise
            tree.unread.append(here)
            continue
        if listing is None and here == folder:
            raise RequestError(f"--images: {folder} is not a folder; {instead_of(folder, store)}")
        for entry in listing.files if listing else ():
            name = posixpath.basename(entry.url)
            if name in wanted or is_tar(name):
                tree.tars.setdefault(name, []).append(entry)
        todo += listing.folders if listing else ()
    return tree


@contextmanager
def local_tar(urls: Sequence[str], sha256: Any, store: Store) -> Iterator[LocalTar]:
    """The first of some files that has this SHA-256, or else the last, as a local file until the context ends.

    Args:
        urls: of at least one file.
        sha256: hex digest; of any type if it comes from a damaged file of votes.
        store: holds the files.
    """
    for url in urls:
        with store.local(url) as path:
            found = sha256_of(path)
            if found == sha256 or url == urls[-1]:
                yield LocalTar(path, found)
                return


def require_checkpoint_of(run: CheckedRun, url: str, store: Store) -> None:
    """Refuse a checkpoint, by --checkpoint, that is not a file.

    Args:
        run: the run.
        url: as the user gave it.
        store: holds it.
    Raises:
        RequestError: there is no such file; the error says what is there.
    """
    if store.find(url) is not None:
        return
    wanted = f"the checkpoint of the run was {run.record.checkpoint.url}"
    files = sorted(posixpath.basename(entry.url) for entry in store.files(url))
    if files or store.folders(url):
        raise RequestError(f"--checkpoint: {url} is a folder; {wanted}; {in_folder(url, files, 'name')}")
    raise RequestError(f"--checkpoint: {url} does not exist; {wanted}; {instead_of(url, store)}")
