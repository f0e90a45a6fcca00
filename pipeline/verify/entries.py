"""The entries of run.json and _SUCCESS that are compared with nothing: each must have its type.

A mistake in one of them is a finding, and the check goes on. Entries that determine the votes are left to identity.py,
which compares each with the identity, and figures of the rows and files to figures.py, which counts them. An entry with
a default may be missing: an older run lacks newer entries.

Not covered: the entries that the check needs (record.py).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from smoothcert.pipeline.verify.findings import Finding, shown

RUN_JSON = "run.json"
SUCCESS = "_SUCCESS"

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
OneOrMore = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class _Entries(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Images(_Entries):
    shards: OneOrMore = []
    split: str | None = None
    label_names: list[str] | None = None


class _Model(_Entries):
    checkpoint: str
    checkpoint_key: str | None = None
    class_names: list[str] = []


class _Execution(_Entries):
    actors: Count | None = None
    gpus_per_actor: float | None = None
    cpus_per_actor: float | None = None
    images_per_batch: Count | None = None
    memory_gib: float | None = None
    max_attempts: Count = 1


class _Storage(_Entries):
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False
    requester_pays: bool = False


class _Job(_Entries):
    name: str
    images: _Images
    model: _Model
    patches: list[Count]
    output: str = ""
    max_error_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    execution: _Execution = _Execution()
    storage: _Storage = _Storage()


class _Checkpoint(_Entries):
    url: str
    sha256: str
    key: str | None = None


class _Shard(_Entries):
    url: str
    fingerprint: str = ""
    images: int | None = None


class _Run(_Entries):
    name: str
    created: str = ""
    votes_version: int
    job: _Job
    checkpoint: _Checkpoint
    shards: list[_Shard]
    versions: dict[str, str] = {}
    unsafe_overwrite: bool = False
    class_names: list[str] = []


class _Success(_Entries):
    first_bad_label: str | None = None
    rotated_images: Natural = 0
    system_members: Natural = 0
    samples_without_image: Natural = 0
    suffixes_without_image: list[str] = []


def check_entries(content: Mapping[str, Any]) -> Iterator[Finding]:
    """Find the entries of run.json that are missing or have the wrong type."""
    return _mistakes(RUN_JSON, _Run, content)


def check_success_entries(content: Mapping[str, Any]) -> Iterator[Finding]:
    """Find the entries of _SUCCESS that have the wrong type."""
    return _mistakes(SUCCESS, _Success, content)


def _mistakes(file: str, model: type[_Entries], content: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        model.model_validate(content)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            if mistake["type"] == "missing":
                text = "is missing"
            else:
                text = f"is {shown(mistake['input'])}, {mistake['msg'].replace('Input should be', 'expected')}"
            yield Finding(file, text, ".".join(map(str, mistake["loc"])))
