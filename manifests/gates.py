"""The gate file: what a comparison of two runs may lose before a job fails, and which losses are accepted.

    gates:
      - {metric: certified, patch: 32, max_lost: 5}
      - {metric: smoothed, min: 0.60}
    accept:
      - {shard: val-00.tar, key: "000123", reason: relabelled, until: 2027-01-31}

Not covered: whether the gates hold (pipeline/compare/gates.py).
"""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Strict, field_validator, model_validator

from smoothcert.manifests.rules import Certificate, RuleName
from smoothcert.manifests.yaml_file import Part, load_file


def _no_truth_value(value: Any) -> Any:
    """pydantic reads true as 1, with which no gate trips."""
    if isinstance(value, bool):
        raise ValueError("is no share; write a fraction such as 0.01")  # noqa: TRY004
    return value


Share = Annotated[float, BeforeValidator(_no_truth_value), Field(ge=0, le=1)]
Count = Annotated[int, Strict(), Field(ge=0)]
_LIMITS = ("max_lost", "max_drop", "min", "max")


def _sides(value: Any) -> Any:
    """Height and width of `32` or `16x48`."""
    text = f"{value}x{value}" if type(value) is int else value
    if isinstance(text, str) and (sides := re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", text, re.ASCII)):
        return (int(sides[1]), int(sides[2]))
    raise ValueError("is no patch; write a side such as 32, or HEIGHTxWIDTH such as 16x48, in pixels")


def _as_written(value: Any) -> Any:
    """YAML reads 000123 as a number, which no longer has its zeros."""
    if not isinstance(value, str):
        raise ValueError("is a number or a date to YAML; write it in quotes, as the run has it")  # noqa: TRY004
    return value


def _no_number(value: Any) -> Any:
    """pydantic reads a number as seconds since 1970."""
    if isinstance(value, int | float):
        raise ValueError("is no date; write it as 2027-01-31")  # noqa: TRY004
    return value


AsWritten = Annotated[str, BeforeValidator(_as_written)]


class Gate(Part):
    """One limit, or several, on one metric."""

    metric: Literal["certified", "smoothed", "clean", "errors"]
    """certified: images with a certificate (and, with labels, the right class); smoothed, clean: images classified as
    their label says; errors: images without votes or without a usable label."""
    patch: Annotated[tuple[int, int] | None, BeforeValidator(_sides, json_schema_input_type=int | str)] = None
    """Of metric certified: the side of a square in pixels, or HEIGHTxWIDTH."""
    rule: RuleName = RuleName.exact
    """Of metric certified: exact; margin for columns, rows and blocks; published for masks."""
    certificate: Certificate = Certificate.recovery
    """Of metric certified: recovery, or detection by masks."""
    class_: Annotated[int, Strict(), Field(ge=0)] | Literal["each"] | None = Field(default=None, alias="class")
    """Only the images of this class; each: of every class by itself."""
    min_images: Annotated[int, Strict(), Field(ge=1)] = 1
    """Classes with fewer images are left out of `class: each`."""
    max_lost: Count | None = None
    """How many images may lose it, whatever is gained."""
    max_drop: Share | None = None
    """By how much the share of images may fall, as a fraction."""
    min: Share | None = None
    """The smallest share in the new run, as a fraction."""
    max: Share | None = None
    """Of metric errors: the largest share in the new run, as a fraction."""

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        return {name: getattr(self, name) for name in _LIMITS if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.metric == "certified" and self.patch is None:
            raise ValueError("metric certified needs a patch, such as patch: 32")
        if self.metric != "certified" and (self.patch is not None or self.model_fields_set & {"rule", "certificate"}):
            raise ValueError(
                f"patch, rule and certificate belong to metric certified, not to {self.metric}; remove them"
            )
        if not self.limits:
            raise ValueError(f"sets no limit; add {'max' if self.metric == 'errors' else 'max_lost, max_drop or min'}")
        if wrong := [name for name in self.limits if (name == "max") != (self.metric == "errors")]:
            raise ValueError(f"metric {self.metric} has no {wrong[0]}; errors has max, the others have the rest")
        if "min_images" in self.model_fields_set and self.class_ != "each":
            raise ValueError("min_images belongs to `class: each`; add it, or remove min_images")
        return self


class Acceptance(Part):
    """An image whose losses are known and acknowledged."""

    shard: AsWritten
    """Name of the tar."""
    key: AsWritten
    """Of the image."""
    reason: str
    """Why the loss is accepted; printed with it."""
    until: Annotated[date, BeforeValidator(_no_number)] | None = None
    """The last day on which this counts; null: for ever."""

    @field_validator("reason")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; write why the loss is accepted")
        return value


class Gates(Part):
    """A gate file."""

    gates: tuple[Gate, ...]
    """What must hold; each gate is a mapping such as {metric: certified, patch: 32, max_lost: 5}."""
    accept: tuple[Acceptance, ...] = ()
    """Images whose losses no gate counts."""

    @field_validator("gates")
    @classmethod
    def _not_empty(cls, value: tuple[Gate, ...]) -> tuple[Gate, ...]:
        if not value:
            raise ValueError("is empty; name at least one gate")
        return value


def load_gates(path: str | Path) -> Gates:
    """Read a gate file.

    Raises:
        RequestError: a line for each mistake, with file, key path, value and remedy.
    """
    return load_file(Gates, path, kind="gate file")
