"""OUTPUT/history: what every night found, and which run is the baseline of each entry.

    nights/NIGHT.json                 a record of a night
    accepted/HASH-TIME-UNIQUE.json    a run becomes the baseline of an entry, whose hash this is; the last one counts
    reports/NIGHT/ENTRY/              pages of the night
    index.html                        the page, made from the records

Records are published once and never changed, so several nights can write at once, and a reader never sees half of one.
The page is replaced.

Not covered: what the records hold (records.py), what the page shows (page.py).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import uuid4

from smoothcert.manifests.errors import RequestError, SmoothcertError
from smoothcert.manifests.job import Storage
from smoothcert.manifests.locations import name_of
from smoothcert.pipeline.nightly.records import AcceptanceRecord, By, NightRecord
from smoothcert.workers.iteration import map_ahead
from smoothcert.workers.runs.json_file import damaged, parse
from smoothcert.workers.storage.store import AnyStore

PAGE = "index.html"
_FOLDER, _NIGHTS, _ACCEPTED, _REPORTS = "history", "nights", "accepted", "reports"
_READERS = 8  # S3 answers a read after some 20 ms
_TIME = "%Y%m%dT%H%M%S%fZ"
_ACCEPTANCE = re.compile(r"(?P<key>[0-9a-f]{16})-(?P<time>\d{8}T\d{12}Z)-[0-9a-f]{8}\.json")


class Nights(NamedTuple):
    """The nights, the oldest first, and a line for each record that cannot be read."""

    records: list[NightRecord]
    damaged: list[str]


class History:
    """The history of an output.

    Args:
        output: the folder of the runs, or its URL.
        storage: how to reach it.
    """

    def __init__(self, output: str, storage: Storage) -> None:
        self.output = output.rstrip("/")
        self.storage = storage
        self.url = f"{self.output}/{_FOLDER}"
        self.store = AnyStore(storage)
        self._read: dict[str, NightRecord | str] = {}

    def nights(self) -> Nights:
        """All nights; each record is read once."""
        names = self._names(_NIGHTS)
        unread = [name for name in names if name not in self._read]
        records = map_ahead(self._night, unread, threads=_READERS, count=_READERS)
        self._read |= dict(zip(unread, records, strict=True))
        found = [self._read[name] for name in names]
        return Nights(
            [one for one in found if isinstance(one, NightRecord)], [one for one in found if isinstance(one, str)]
        )

    def names(self) -> frozenset[str]:
        """The names of all records."""
        return frozenset([*self._names(_NIGHTS), *self._names(_ACCEPTED)])

    def baseline(self, suite: str, entry: str) -> AcceptanceRecord | None:
        """What made the baseline of an entry; None if it has none.

        Raises:
            RequestError: the record is damaged. An older one would be another baseline.
        """
        names = self._acceptances().get(_key_of(suite, entry))
        return None if names is None else self._acceptance(names[-1])

    def acceptances(self) -> tuple[list[AcceptanceRecord], list[str]]:
        """What made the baseline of each entry, and a line for each record that cannot be read."""
        found, lines = list[AcceptanceRecord](), list[str]()
        for names in self._acceptances().values():
            try:
                found.append(self._acceptance(names[-1]))
            except SmoothcertError as error:
                lines.append(str(error))
        return found, lines

    def publish_night(self, night: NightRecord) -> None:
        """Write the record of a night.

        Raises:
            RequestError, RunError: it cannot be written.
        """
        self.store.sweep(self.url)
        self.store.publish(self.url, f"{_NIGHTS}/{night.night}.json", night.encode())

    def publish_pages(self, night: str, entry: str, pages: Mapping[str, str]) -> dict[str, str]:
        """Write the pages of an entry, texts by name; gives their paths by name, relative to the history.

        Raises:
            RequestError, RunError: they cannot be written.
        """
        paths = {name: f"{_REPORTS}/{night}/{entry}/{name}" for name in pages}
        for name, text in pages.items():
            self.store.publish(self.url, paths[name], text.encode(errors="backslashreplace"))  # paths need not be UTF-8
        return paths

    def accept(self, suite: str, entry: str, run_id: str, by: By) -> AcceptanceRecord:
        """Make a run the baseline of an entry.

        Raises:
            RequestError, RunError: that cannot be written.
        """
        key, at = _key_of(suite, entry), datetime.now(UTC)
        if names := self._acceptances().get(key):  # the clock of another machine may be ahead
            at = max(at, _time_of(names[-1]) + timedelta(microseconds=1))
        record = AcceptanceRecord(suite=suite, entry=entry, run_id=run_id, at=at.isoformat(), by=by)
        self.store.publish(self.url, f"{_ACCEPTED}/{key}-{name_at(at)}.json", record.encode())
        return record

    def write_page(self) -> None:
        """Write the page. If a record came meanwhile it is written again, so that of nights at once it shows all.

        Raises:
            RequestError, RunError: it cannot be written.
        """
        from smoothcert.pipeline.nightly.page import html_of  # matplotlib takes a moment to load

        there = None
        while there != (now := self.names()):
            there = now
            nights, (baselines, lines) = self.nights(), self.acceptances()
            page = html_of(nights.records, baselines, [*nights.damaged, *lines])
            self.store.replace(f"{self.url}/{PAGE}", page.encode(errors="backslashreplace"))

    def _names(self, folder: str) -> list[str]:
        names = [name_of(entry.url) for entry in self.store.files(f"{self.url}/{folder}")]
        return sorted(name for name in names if name.endswith(".json"))

    def _acceptances(self) -> dict[str, list[str]]:
        """The names of the records by entry, the oldest first."""
        found: dict[str, list[str]] = {}
        for name in self._names(_ACCEPTED):
            if parts := _ACCEPTANCE.fullmatch(name):
                found.setdefault(parts["key"], []).append(name)
        return found

    def _acceptance(self, name: str) -> AcceptanceRecord:
        url = f"{self.url}/{_ACCEPTED}/{name}"
        record = parse(AcceptanceRecord, self.store.read(url), url)
        if not name.startswith(_key_of(record.suite, record.entry)):
            raise RequestError(damaged(url, "its name is not that of its entry", AcceptanceRecord.remedy))
        return record

    def _night(self, name: str) -> NightRecord | str:
        url = f"{self.url}/{_NIGHTS}/{name}"
        try:
            return parse(NightRecord, self.store.read(url), url)
        except SmoothcertError as error:
            return str(error)


def name_at(moment: datetime) -> str:
    """A name that sorts by time and that no one else takes."""
    return f"{moment.astimezone(UTC):{_TIME}}-{uuid4().hex[:8]}"


def baseline_runs(output: str, storage: Storage) -> Mapping[str, str]:
    """The runs that are baselines: run id to entry in words.

    Raises:
        RequestError: a record is damaged, so a baseline may be unknown.
    """
    found, lines = History(output, storage).acceptances()
    if lines:
        raise RequestError("\n".join(lines))
    words: dict[str, list[str]] = {}
    for one in found:
        words.setdefault(one.run_id, []).append(in_words(one.suite, one.entry))
    return {run_id: ", ".join(sorted(entries)) for run_id, entries in words.items()}


def in_words(suite: str, entry: str) -> str:
    """An entry of a suite."""
    return f"{entry} of {suite}"


def entries_of(nights: Iterable[NightRecord]) -> dict[tuple[str, str], str]:
    """Suite and entry of all nights, each with its last run."""
    return {(night.suite, one.entry): one.run_id for night in nights for one in night.entries if one.run_id is not None}


def _key_of(suite: str, entry: str) -> str:
    """An entry as part of a file name; its own name may be too long."""
    return hashlib.sha256(f"{suite}\0{entry}".encode(errors="surrogateescape")).hexdigest()[:16]


def _time_of(name: str) -> datetime:
    parts = _ACCEPTANCE.fullmatch(name)
    assert parts is not None  # _acceptances lists no other
    return datetime.strptime(parts["time"], _TIME).replace(tzinfo=UTC)
