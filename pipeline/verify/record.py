"""run.json and _SUCCESS as the checker reads them, and the run they describe.

The models are the checker's own and share nothing with those that write the files. They name the entries that the
check needs, with the types that it needs, and keep all others as they are.

Not covered: whether run.json contradicts itself (identity.py), whether _SUCCESS is true (figures.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.frame import Frame
from smoothcert.workers.storage.store import AnyStore, Store

Number = Annotated[int, Field(ge=1)]
MAX_SUGGESTED_FOLDERS = 20


class _Entries(BaseModel):
    """A part of a JSON file: checked, frozen, with all the other entries it has."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")


class RecordedImages(_Entries):
    label: str | None
    limit: Number | None


class RecordedModel(_Entries):
    checkpoint: str
    classes: Annotated[int, Field(ge=2)]


class RecordedPreprocess(_Entries):
    resize: Number | None
    crop: Number


class RecordedAblation(_Entries):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["column", "row", "block"]
    size: Number
    stride: Number
    edges: Literal["wrap", "inside"]


class RecordedJob(_Entries):
    name: str
    images: RecordedImages
    model: RecordedModel
    preprocess: RecordedPreprocess
    ablation: RecordedAblation
    clean: bool
    patches: tuple[int, ...]

    @property
    def labelled(self) -> bool:
        return self.images.label is not None

    @property
    def frame(self) -> Frame:
        ablation = self.ablation
        return Frame(ablation.kind, ablation.size, ablation.stride, ablation.edges, self.preprocess.crop)

    @model_validator(mode="after")
    def _ablations_fit(self) -> Self:
        if self.ablation.size > self.preprocess.crop:
            raise ValueError(f"ablations of {self.ablation.size} pixels in an image of {self.preprocess.crop}")
        return self


class RecordedShard(_Entries):
    name: str
    url: str
    size: Number
    limit: int | None


class RecordedCheckpoint(_Entries):
    url: str
    sha256: str
    key: str | None


class RunRecord(_Entries):
    """run.json."""

    run_id: str
    name: str
    partial: bool
    identity: dict[str, Any]
    votes_version: int
    job: RecordedJob
    checkpoint: RecordedCheckpoint
    shards: tuple[RecordedShard, ...]

    @model_validator(mode="after")
    def _limits_are_known(self) -> Self:
        if self.partial and any(shard.limit is None for shard in self.shards):
            raise ValueError("a shard of a PARTIAL run has no limit")
        return self


class SuccessRecord(_Entries):
    """_SUCCESS. Its figures have any type: one that the rows do not give is a finding, not an error."""

    files: dict[str, Any]
    certified: Any = None


class Success(NamedTuple):
    """Whether _SUCCESS is there, and what it says: None if it is missing or damaged."""

    is_there: bool
    record: SuccessRecord | None


@dataclass(frozen=True)
class CheckedRun:
    """The run that is checked: its folder, how to reach it, and its run.json."""

    url: str
    storage: Storage
    record: RunRecord

    @cached_property
    def store(self) -> Store:
        return AnyStore(self.storage)

    @property
    def job(self) -> RecordedJob:
        return self.record.job

    @cached_property
    def shards(self) -> Mapping[str, RecordedShard]:
        """The shards with at least one image in the run, by the names of their files of votes."""
        return {
            f"votes/{index:05d}-{shard.name.removesuffix('.tar')}.parquet": shard
            for index, shard in enumerate(self.record.shards)
            if shard.limit != 0
        }


def open_run(url: str, storage: Storage) -> CheckedRun:
    """Read run.json.

    Args:
        url: the run's folder.
        storage: how to reach it.
    Raises:
        RequestError: run.json is missing or damaged.
    """
    url = url.rstrip("/")
    store = AnyStore(storage)
    if store.find(f"{url}/run.json") is None:
        raise RequestError(f"{url}: holds no run.json; name the folder of a run, OUTPUT/RUN_ID{_such_as(url, store)}")
    try:
        return CheckedRun(url, storage, RunRecord.model_validate_json(store.read(f"{url}/run.json")))
    except ValidationError as error:
        raise RequestError(f"{url}/run.json is damaged ({reason_of(error)}); restore it") from None


def _such_as(url: str, store: Store) -> str:
    folders = store.folders(url)[:MAX_SUGGESTED_FOLDERS]
    run = next((folder for folder in folders if store.find(f"{folder}/run.json") is not None), None)
    return f", such as {run}" if run else ""


def read_success(run: CheckedRun) -> Success:
    """Read _SUCCESS."""
    url = f"{run.url}/_SUCCESS"
    if run.store.find(url) is None:
        return Success(is_there=False, record=None)
    try:
        return Success(is_there=True, record=SuccessRecord.model_validate_json(run.store.read(url)))
    except ValidationError:
        return Success(is_there=True, record=None)


def reason_of(error: Exception) -> str:
    """An error in one line; of several mistakes in JSON, the first."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
