"""The entries of run.json that the check of the rows does not need: each must be there, or have its type.

A mistake in one of them is a finding, and the check goes on. Entries that determine the votes are left to identity.py,
which compares each with the identity. An entry with a default may be missing: an older run lacks newer entries.

Not covered: the entries that the check needs (record.py).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from smoothcert.pipeline.verify.findings import Finding, shown

RUN_JSON = "run.json"

Count = Annotated[int, Field(ge=1)]
OneOrMore = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class _Entries(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Images(_Entries):
    shards: OneOrMore = []
    split: str | None = None


class _Model(_Entries):
    checkpoint: str
    checkpoint_key: str | None = None


class _Execution(_Entries):
    actors: Count | None = None
    gpus_per_actor: float | None = None
    cpus_per_actor: float | None = None
    images_per_batch: Count | None = None
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
    max_error_share: float = 0.0
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


def check_entries(content: Mapping[str, Any]) -> Iterator[Finding]:
    """Find the entries of run.json that are missing or have the wrong type, among those that the rows do not need."""
    try:
        _Run.model_validate(content)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            if mistake["type"] == "missing":
                text = "is missing"
            else:
                text = f"is {shown(mistake['input'])}, {mistake['msg'].replace('Input should be', 'expected')}"
            yield Finding(RUN_JSON, text, ".".join(map(str, mistake["loc"])))
