"""A file that a user asks for with an option of a command: on this machine, or in S3.

It appears when it is complete. A file of this name is replaced only if the user says so, and never if it lies in the
folder of a run: what a run holds is evidence.

Not covered: files of a run (Store.publish), and the files of other commands on this machine (aside.py).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.workers.storage.aside import written_aside
from smoothcert.workers.storage.disk import naming_a_full_disk
from smoothcert.workers.storage.store import AnyStore
from smoothcert.workers.storage.temporary import temporary_folder

EVIDENCE = ("run.json", "_SUCCESS")
"""A folder that holds one of these is a run."""


@dataclass(frozen=True)
class OutputFile:
    """Where a file is to be written.

    Attributes:
        place: a path, or s3://BUCKET/KEY.
        option: the option of the command that names it, for errors.
        overwrite: whether a file of this name is replaced.
        storage: how to reach S3.
    """

    place: str
    option: str
    overwrite: bool = False
    storage: Storage = Storage()  # noqa: RUF009  frozen

    def check(self) -> None:
        """Refuse a place that cannot be written to, before long work.

        Raises:
            RequestError: the file exists and is not to be replaced or lies in a run, or its folder does not exist.
        """
        if self._in_store:
            self._check_in_store()
        else:
            self._check_in_folder()

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """The file, open for writing; it gets its name when the block ends without an error.

        Raises:
            RequestError: as for `check`, or it cannot be written.
            RunError: the disk is full, or the network failed.
        """
        self.check()
        with self._opened_in_store() if self._in_store else self._opened_in_folder() as file:
            yield file

    @property
    def _in_store(self) -> bool:
        return "://" in self.place

    def _check_in_folder(self) -> None:
        path = Path(self.place)
        try:
            there = path.exists()
            path.absolute().parent.stat()
            if there and (path.is_dir() or not self.overwrite):
                raise self._is_there()
            refuse_inside_a_run(path.parent, self.option, self.place)
        except OSError as error:
            raise self._unwritable(error) from None

    @contextmanager
    def _opened_in_folder(self) -> Iterator[BinaryIO]:
        path = Path(self.place)
        with naming_a_full_disk(path.absolute().parent, f"name another file with {self.option}"), ExitStack() as opened:
            opened.enter_context(self._refusing_a_late_one())
            try:
                aside = opened.enter_context(written_aside(path, overwrite=self.overwrite))
                file = opened.enter_context(aside.open("wb"))  # opened here: Arrow takes some names for URLs
            except OSError as error:
                raise self._unwritable(error) from None
            yield file

    @contextmanager
    def _refusing_a_late_one(self) -> Iterator[None]:
        """Refuse to replace a file that appeared while this one was written."""
        try:
            yield
        except FileExistsError:
            raise self._is_there() from None

    def _check_in_store(self) -> None:
        if not self.place.startswith("s3://"):
            scheme = self.place.partition("://")[0]
            raise RequestError(
                f"{self.option} {self.place}: {scheme}:// is not written to; name a file of this machine, or s3://BUCKET/KEY"
            )
        store, (folder, name) = AnyStore(self.storage), self.place.rsplit("/", 1)
        if not name or folder.endswith(":/"):
            raise RequestError(f"{self.option} {self.place}: names no file; write s3://BUCKET/KEY")
        if not self.overwrite and store.find(self.place) is not None:
            raise self._is_there()
        parts = folder.split("/")
        folders = ("/".join(parts[:end]) for end in range(len(parts), 2, -1))
        if run := _run_among(folders, lambda place: store.find(place) is not None):
            raise _is_evidence(self.option, self.place, run)

    @contextmanager
    def _opened_in_store(self) -> Iterator[BinaryIO]:
        store, (folder, name) = AnyStore(self.storage), self.place.rsplit("/", 1)
        with temporary_folder() as here:
            path = here / "output"
            with naming_a_full_disk(here.parent, "set TMPDIR to another folder"), path.open("wb") as file:
                yield file
            data = path.read_bytes()
        if self.overwrite:
            self._check_in_store()  # a run may have begun there meanwhile
            store.replace(self.place, data)
        elif not store.publish(folder, name, data) and store.read(self.place) != data:  # the answer may have been lost
            raise self._is_there()

    def _is_there(self) -> RequestError:
        remedy = "" if self.overwrite else ", or add --overwrite"
        return RequestError(f"{self.option} {self.place}: is there already; name a new file{remedy}")

    def _unwritable(self, error: OSError) -> RequestError:
        return RequestError(
            f"{self.option} {self.place}: cannot be written ({error.strerror}); name a file of this machine, or "
            "s3://BUCKET/KEY"
        )


def refuse_inside_a_run(folder: Path, option: str, place: object = None) -> None:
    """Refuse to write into a folder that is a run or lies in one.

    Args:
        folder: on this machine; it need not exist.
        option: the option of the command that names it, for the error.
        place: what the user named; None: the folder.
    Raises:
        RequestError: it is, or does.
    """
    inside = folder.resolve()
    if run := _run_among(map(str, [inside, *inside.parents]), lambda one: Path(one).exists()):
        raise _is_evidence(option, folder if place is None else place, run)


def _is_evidence(option: str, place: object, run: str) -> RequestError:
    return RequestError(f"{option} {place}: lies in the run {run}, which no output may change; name a file elsewhere")


def _run_among(folders: Iterable[str], exists: Callable[[str], bool]) -> str | None:
    """The first of these folders that is a run."""
    return next((folder for folder in folders if any(exists(f"{folder}/{name}") for name in EVIDENCE)), None)
