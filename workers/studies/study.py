"""A study on disk, inside its run.

    OUTPUT/RUN_ID/studies/STUDY_ID/study.json                  settings, and which images; written first, once
    OUTPUT/RUN_ID/studies/STUDY_ID/rows/00000-NAME.parquet     a row per image; published once, whole
    OUTPUT/RUN_ID/studies/STUDY_ID/_SUCCESS                    the SHA-256 of every file; written last

Each file holds some images of one shard, so that an interrupted study loses little.

Not covered: what the rows hold (one file per kind); making them (worker.py).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.studies import KINDS, Study
from smoothcert.workers.runs.json_file import Record, damaged, parse
from smoothcert.workers.runs.layout import STUDIES
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardTask

STUDY_JSON = "study.json"
ROWS = "rows"
SUCCESS = "_SUCCESS"
AGAIN = "remove the folder of the study, then run the same command again"

_FROM_LIST = Field(strict=False)  # JSON has lists where a record has tuples


class PartRecord(Record):
    """Some images of one shard."""

    shard: int
    """Position of the shard in the run."""
    images: Annotated[tuple[int, ...], _FROM_LIST]
    """Rows of the shard, from 0."""


class StudyRecord(Record):
    """The content of study.json."""

    remedy: ClassVar[str] = AGAIN
    json_style: ClassVar[Mapping[str, Any]] = {"sort_keys": True}

    study_id: str
    """First digits of the SHA-256 of what determines the rows."""
    run_id: str
    """The run whose images are measured."""
    kind: str
    """What is measured."""
    settings: dict[str, Any]
    """The settings of this kind."""
    choice: dict[str, Any]
    """How the images were chosen."""
    candidates: int
    """Number of images among which they were chosen."""
    created: str
    """When the study began, in UTC."""
    parts: Annotated[tuple[PartRecord, ...], _FROM_LIST]
    """The images, one entry for each file."""


class StudySuccess(Record):
    """The content of _SUCCESS."""

    remedy: ClassVar[str] = AGAIN
    json_style: ClassVar[Mapping[str, Any]] = {"sort_keys": True, "indent": 1}

    rows: int
    """Number of images."""
    files: dict[str, str]
    """SHA-256 of each file, by its name."""


@dataclass(frozen=True)
class PartTask(ShardTask):
    """A part of a study: some images of a shard. `index` counts the parts; `limit` is the number of images.

    Attributes:
        images: rows of the shard.
        votes_file: the shard's file of votes, relative to the run.
        study_id: of the study.
    """

    images: tuple[int, ...] = ()
    votes_file: str = ""
    study_id: str = ""

    @property
    def file_name(self) -> str:
        """Relative to the run."""
        return f"{STUDIES}/{self.study_id}/{ROWS}/{self.index:05d}-{self.shard.name.removesuffix('.tar')}.parquet"


@dataclass(frozen=True)
class StoredStudy:
    """A study of a run.

    Attributes:
        run: the run.
        record: what study.json says.
    """

    run: Run
    record: StudyRecord

    @property
    def url(self) -> str:
        """RUN/studies/STUDY_ID."""
        return f"{self.run.url}/{STUDIES}/{self.record.study_id}"

    @cached_property
    def settings(self) -> Study:
        """What is measured.

        Raises:
            RequestError: this version does not understand study.json.
        """
        try:
            return KINDS[self.record.kind].model_validate(self.record.settings)
        except (KeyError, ValidationError) as error:
            raise RequestError(damaged(f"{self.url}/{STUDY_JSON}", error, AGAIN)) from None

    @cached_property
    def tasks(self) -> tuple[PartTask, ...]:
        """Its parts, in order, with the shards where run.json says they are."""
        tasks = {task.index: task for task in self.run.tasks}
        return tuple(
            PartTask(
                number,
                tasks[part.shard].shard,
                len(part.images),
                part.images,
                tasks[part.shard].file_name,
                self.record.study_id,
            )
            for number, part in enumerate(self.record.parts)
        )

    def published(self) -> set[str]:
        """Names of the published files, relative to the run."""
        folder = f"{STUDIES}/{self.record.study_id}/{ROWS}"
        return {f"{folder}/{Path(entry.url).name}" for entry in self.run.store.files(f"{self.run.url}/{folder}")}

    def missing(self) -> tuple[PartTask, ...]:
        """The parts that are not published."""
        published = self.published()
        return tuple(task for task in self.tasks if task.file_name not in published)

    def success(self) -> StudySuccess | None:
        """The content of _SUCCESS, or None if the study is not complete.

        Raises:
            RunError: _SUCCESS is damaged.
        """
        url = f"{self.url}/{SUCCESS}"
        if self.run.store.find(url) is None:
            return None
        return parse(StudySuccess, self.run.store.read(url), url)

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """A row per image of the published parts, in order.

        Args:
            columns: those to read; None: all.
        Raises:
            RunError: a file is damaged.
        """
        return pa.concat_tables([table for table, _ in self._files(columns).values()])

    def _files(self, columns: Sequence[str] | None = None) -> dict[str, tuple[pa.Table, str]]:
        """The rows of each published file, and its SHA-256; arguments and errors as for `rows`."""
        success, published = self.success(), self.published()
        wanted = None if columns is None else [*columns]
        found = {}
        for task in self.tasks:
            if task.file_name not in published:
                continue
            url = f"{self.run.url}/{task.file_name}"
            data = self.run.store.read(url)
            sha256 = hashlib.sha256(data).hexdigest()
            if success is not None and success.files.get(task.file_name) != sha256:
                raise RunError(damaged(url, "its SHA-256 is not the one in _SUCCESS", AGAIN))
            try:
                file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
                table = file.read(wanted, use_threads=False)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise RunError(damaged(url, error, AGAIN)) from None
            found[task.file_name] = (table.replace_schema_metadata(None), sha256)
        return found

    def finish(self) -> StudySuccess:
        """Write _SUCCESS: every part is published.

        Raises:
            RunError: a file is damaged, or _SUCCESS exists and names other files.
        """
        files = self._files(["index"])
        record = StudySuccess(
            rows=sum(len(table) for table, _ in files.values()),
            files={name: sha256 for name, (_, sha256) in files.items()},
        )
        self.run.store.publish(self.run.url, f"{STUDIES}/{self.record.study_id}/{SUCCESS}", record.encode())
        return record


def studies_of(run: Run) -> list[StoredStudy]:
    """The studies of a run that have a study.json, by id.

    Raises:
        RunError: a study.json is damaged.
    """
    found = []
    for folder in run.store.folders(f"{run.url}/{STUDIES}"):
        url = f"{folder.rstrip('/')}/{STUDY_JSON}"
        if run.store.find(url) is not None:
            found.append(StoredStudy(run, parse(StudyRecord, run.store.read(url), url)))
    return found
