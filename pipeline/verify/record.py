"""run.json and _SUCCESS as the checker reads them, and the run they describe.

The models are the checker's own and share nothing with those that write the files. They name the entries without which
rows cannot be checked. If one of them is wrong, the check ends. Entries that may have any type are checked elsewhere.

Not covered: all other entries of run.json (entries.py), whether it contradicts itself (identity.py), whether _SUCCESS
is true (figures.py).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.frame import Frame
from smoothcert.pipeline.verify.masks import MAX_VOTES, Masks
from smoothcert.workers.storage.store import AnyStore, Store

MAX_NUMBER = 2**31 - 1
"""Of int32, the type of most columns, and of the length of a list in Arrow."""
Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
KINDS = ("column", "row", "block", "mask")
MAX_SUGGESTED_FOLDERS = 20


class _Entries(BaseModel):
    """A part of a JSON file: checked and frozen."""

    model_config = ConfigDict(frozen=True, strict=True)


class RecordedImages(_Entries):
    label: str | None
    limit: Number | None


class RecordedModel(_Entries):
    classes: Annotated[int, Field(ge=2, le=2**16)]


class RecordedPreprocess(_Entries):
    resize: Number | None
    squash: bool = False
    crop: Number


class RecordedAblation(_Entries):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["column", "row", "block"]
    size: Number
    stride: Number
    edges: Literal["wrap", "inside"]

    def seen_on(self, side: int) -> Frame:
        """The ablations of an image of this side."""
        if self.size > side:
            raise ValueError(f"ablation.size is {self.size}, the image has {side} pixels")
        frame = Frame(self.kind, self.size, self.stride, self.edges, side)
        if frame.num_ablations > MAX_NUMBER:
            raise ValueError(f"ablation gives {frame.num_ablations} ablations, at most {MAX_NUMBER} fit a column")
        return frame


class RecordedMasks(_Entries):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["mask"]
    threat: Any
    per_axis: Annotated[int, Field(ge=2, le=MAX_NUMBER)]
    fill: Literal["mean", "black"]
    threat_patches: Annotated[int, Field(ge=1, le=2)]
    early_exit: bool

    @property
    def patch(self) -> tuple[int, int] | None:
        """Height and width of a patch; None if the threat is a number of pixels."""
        match self.threat:
            case int(side):
                return side, side
            case str(text):
                height, width = text.split("x")
                return int(height), int(width)
            case _:
                return None

    @field_validator("threat")
    @classmethod
    def _is_a_threat(cls, threat: Any) -> Any:
        match threat:
            case int(number) | {"pixels": int(number)}:
                is_one = type(number) is int and 0 < number <= MAX_NUMBER and threat in (number, {"pixels": number})
            case str(text):
                is_one = re.fullmatch("[1-9][0-9]{0,8}x[1-9][0-9]{0,8}", text) is not None
            case _:
                is_one = False
        if is_one:
            return threat
        raise ValueError("expected a side, HEIGHTxWIDTH or {pixels: N}, in pixels")

    def seen_on(self, side: int) -> Masks:
        """The masks of an image of this side."""
        if self.patch is not None and max(self.patch) > side:
            raise ValueError(f"ablation.threat is {self.threat}, the image has {side} x {side} pixels")
        threat = self.patch or self.threat["pixels"]
        masks = Masks(threat, self.per_axis, self.threat_patches, self.early_exit, side)
        if masks.num_ablations > MAX_VOTES:
            raise ValueError(f"ablation gives {masks.num_ablations} votes, at most {MAX_VOTES} are allowed")
        if masks.hides_everything:
            raise ValueError(f"ablation has a vote on nothing: it hides the whole image of {side} x {side} pixels")
        return masks


class RecordedJob(_Entries):
    images: RecordedImages
    model: RecordedModel
    preprocess: RecordedPreprocess
    ablation: Annotated[RecordedAblation | RecordedMasks, Field(discriminator="kind")]
    clean: bool
    patches: Any = None

    @property
    def labelled(self) -> bool:
        return self.images.label is not None

    @cached_property
    def ablations(self) -> Frame | Masks:
        """What votes."""
        return self.ablation.seen_on(self.preprocess.crop)

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of the patches, as far as they can be read."""
        patches = self.patches if isinstance(self.patches, list) else []
        return tuple(side for side in patches if type(side) is int)

    @model_validator(mode="after")
    def _ablations_fit(self) -> Self:
        assert self.ablations  # computed once, or a ValueError
        return self


class RecordedShard(_Entries):
    name: str
    url: Any = None
    size: Annotated[int, Field(ge=1)]
    limit: int | None


class RecordedCheckpoint(_Entries):
    url: Any = None
    sha256: Any = None
    key: Any = None


class RunRecord(_Entries):
    """run.json."""

    run_id: str
    name: Any = None
    partial: bool
    identity: dict[str, Any]
    votes_version: Any = None
    job: RecordedJob
    checkpoint: RecordedCheckpoint
    shards: Annotated[tuple[RecordedShard, ...], Field(strict=False)]  # JSON has a list


class SuccessRecord(_Entries):
    """_SUCCESS. Its figures have any type: one that the rows do not give is a finding, not an error."""

    model_config = ConfigDict(extra="allow")

    files: dict[str, Any]
    certified: Any = None


class Success(NamedTuple):
    """Whether _SUCCESS is there, and what it says: None if it is missing or damaged."""

    is_there: bool
    record: SuccessRecord | None


@dataclass(frozen=True)
class CheckedRun:
    """The run that is checked.

    Attributes:
        url: its folder.
        storage: how to reach it.
        record: what the check needs of run.json.
        content: all of run.json.
    """

    url: str
    storage: Storage
    record: RunRecord
    content: Mapping[str, Any]

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
        content = parse_json(store.read(f"{url}/run.json"))
        return CheckedRun(url, storage, RunRecord.model_validate(content), content)
    except ValueError as error:
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
        return Success(is_there=True, record=SuccessRecord.model_validate(parse_json(run.store.read(url))))
    except ValueError:
        return Success(is_there=True, record=None)


def parse_json(data: bytes) -> Any:
    """Read JSON as the other commands do: unlike pydantic, Python keeps the bytes of paths that are not UTF-8.

    Raises:
        ValueError: it is not JSON, or a key comes twice.
    """
    try:
        return json.loads(data, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def same_json(one: object, other: object) -> bool:
    """Whether two values are equal as JSON: unlike in Python, true is not 1, nor is 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return content


def reason_of(error: Exception) -> str:
    """An error in one line; of several mistakes in JSON, the first."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in KINDS)  # pydantic adds the kind to the path
    return f"{where}: {first['msg']}" if where else first["msg"]
