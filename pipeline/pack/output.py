"""The folder of a packing: begins it, continues it, refuses another one, and ends it.

A tar is written in .packing/, synced and renamed; its record follows. So a packing that is killed at any time goes on
after the last record, and the tar that it writes again is the same.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.index_file import PACK_INDEX, PACKING
from smoothcert.manifests.names import listed
from smoothcert.pipeline.pack.records import PackIndex, PackRequest, ShardEntry
from smoothcert.workers.runs.json_file import Record, parse
from smoothcert.workers.storage.store import sha256_of

LEFT_OUT = "left_out.csv"
_NEW_TAR = "tar.part"
_WHAT = {
    "images": "the number of images in the source",
    "fingerprint": "the source (names, sizes or times of its files, or labels)",
    "seed": "--seed or --in-order",
    "shard_images": "--shard-images",
    "shard_bytes": "--shard-bytes",
    "names": "--names",
    "classes_sha256": "the classes",
}


class Output:
    """The folder of a packing.

    Args:
        folder: need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._work = folder, folder / PACKING

    @property
    def copies(self) -> Path:
        """A folder for copies of images."""
        return self._work / "copies"

    def index(self) -> PackIndex | None:
        """The index of a complete packing.

        Raises:
            RequestError: the file is damaged, or of something else.
        """
        path = self.folder / PACK_INDEX
        return parse(PackIndex, path.read_bytes(), str(path)) if path.exists() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other packings out of it.

        Raises:
            RequestError: another process packs into the folder, or it holds tars of something else.
        """
        if not self._work.exists() and not (self.folder / PACK_INDEX).exists():
            tars = sorted(path.name for path in self.folder.glob("*.tar"))
            if tars:
                raise RequestError(
                    f"{self.folder}: holds tars that were not packed here ({listed(tars)}); name another folder"
                )
        self._work.mkdir(parents=True, exist_ok=True)
        with (self._work / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RequestError(f"{self.folder}: another process packs into it; wait for it") from None
            yield

    def refuse_another(self, request: PackRequest) -> None:
        """Begin a packing, or go on with the one that is there.

        Raises:
            RequestError: another one is there.
        """
        index, path = self.index(), self._work / "request.json"
        if index is None and not path.exists():
            self._write(path, request)
            return
        then = index.packed if index else self.request()
        differ = [what for name, what in _WHAT.items() if getattr(then, name) != getattr(request, name)]
        if differ:
            raise RequestError(
                f"{self.folder}: holds tars of {then.source} packed in another way; what differs: {', '.join(differ)}; "
                "name another folder, or repeat the first command"
            )

    def request(self) -> PackRequest:
        """The request of the packing that has begun."""
        path = self._work / "request.json"
        return parse(PackRequest, path.read_bytes(), str(path))

    def finished(self) -> list[ShardEntry]:
        """The records of the finished tars, up to the first tar that is missing or has another size."""
        found = []
        for number in range(len(list(self._work.glob("*.json")))):
            path = self._work / f"{number:05d}.json"
            if not path.exists():
                break
            entry = parse(ShardEntry, path.read_bytes(), str(path))
            tar = self.folder / entry.name
            if entry.images and (not tar.exists() or tar.stat().st_size != entry.size):
                break
            found.append(entry)
        return found

    @contextmanager
    def new_file(self) -> Iterator[BinaryIO]:
        """A file for the next tar."""
        with (self._work / _NEW_TAR).open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def publish(self, name: str) -> tuple[int, str]:
        """Give the written file the name of a tar; its size and SHA-256."""
        aside = self._work / _NEW_TAR
        size, sha256 = aside.stat().st_size, sha256_of(aside)
        aside.replace(self.folder / name)
        return size, sha256

    def record(self, number: int, entry: ShardEntry) -> None:
        """Note that a tar is finished."""
        self._write(self._work / f"{number:05d}.json", entry)

    def end(self, index: PackIndex, left_out: str) -> None:
        """Write the list of what was left out, if there is any, and the index, and remove .packing/.

        Raises:
            RunError: a tar that is not of this packing lies in the folder.
        """
        ours = {entry["url"] for entry in index.shardlist}
        if others := sorted(path.name for path in self.folder.glob("*.tar") if path.name not in ours):
            raise RunError(f"{self.folder}: holds tars of something else ({listed(others)}); remove them")
        if left_out:
            aside = self._work / "left_out.part"
            aside.write_text(left_out, encoding="utf-8")
            aside.replace(self.folder / LEFT_OUT)
        self._write(self.folder / PACK_INDEX, index)
        self.clear()

    def clear(self) -> None:
        """Remove what only an unfinished packing needs."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _write(self, path: Path, record: Record) -> None:
        aside = self._work / "record.part"
        aside.write_bytes(record.encode())
        aside.replace(path)
