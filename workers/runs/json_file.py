"""Reads and writes a JSON file as a frozen record, and reports damage in one line.

A file that smoothcert wrote gives the same bytes when it is read and encoded again, whichever version wrote it: keys
that it lacks are not added, further keys are kept, and no value changes its type (but 1 for 1.0, which smoothcert
writes nowhere).

Not covered: which records there are (records.py).
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from smoothcert.manifests.errors import RunError, SmoothcertError
from smoothcert.manifests.names import one_line

REPAIR = "`smoothcert repair` the run, then run the same command again"
"""The remedy for a damaged file that can be made again."""


class Record(BaseModel):
    """The content of one file, or a part of it."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,  # a converted value would give other bytes
        extra="allow",  # a newer version may have written further keys
    )

    error: ClassVar[type[SmoothcertError]] = RunError
    """The error for a damaged file."""
    remedy: ClassVar[str] = REPAIR
    """The remedy for a damaged file."""
    json_style: ClassVar[Mapping[str, Any]] = {}
    """Arguments of json.dumps."""

    def as_json(self) -> dict[str, Any]:
        """The keys that the file has: those that were set, in the order of the fields."""
        return self.model_dump(exclude_unset=True)

    def encode(self) -> bytes:
        """The bytes of the file."""
        return json.dumps(self.as_json(), **self.json_style).encode()


_R = TypeVar("_R", bound=Record)


def parse(model: type[_R], data: bytes | str, url: str) -> _R:
    """Read a record.

    Args:
        model: the record.
        data: JSON.
        url: of the file, for the error.
    Raises:
        RequestError, RunError: (the model's `error`) the file is damaged; one line that names the first wrong field.
    """
    try:
        return model.model_validate(json.loads(data))
    except ValidationError as error:
        reason = _first_mistake(error)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        reason = str(error)
    raise model.error(damaged(url, reason, model.remedy))


def damaged(url: str, reason: object, remedy: str = REPAIR) -> str:
    """The message about a damaged file, on one line."""
    return f"{url} is damaged ({one_line(reason)}); {remedy}"


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, mistake["loc"]))
    if not field:
        return "it is not a JSON object"
    if mistake["type"] == "missing":
        return f"{field} is missing"
    return f"{field} {mistake['msg'].replace('Input should be', 'should be')}"
