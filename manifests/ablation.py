"""What each vote shows of an image: the section `ablation` of a job.

    column, row, block   shows a window and hides the rest
    mask                 hides one or two rectangles and shows the rest

Not covered: which pixels these are (workers/ablations/).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, PlainSerializer, PlainValidator, Strict, ValidationError, WithJsonSchema, field_validator
from pydantic import model_validator as after

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.yaml_file import Part, fields_of, mistakes_in

Pixels = Annotated[int, Strict(), Field(ge=1)]
Fill = Literal["black", "mean"]
Size = tuple[int, int]
"""Height and width in pixels."""

_MOST_PER_AXIS_OF_TWO = 3  # two patches with 4 masks per axis would need 2,516 votes, with 5 15,275


class WindowAblation(Part):
    kind: Literal["column", "row", "block"]
    """Shape of the visible pixels."""
    size: Pixels
    """Width of the column, height of the row, side of the block."""
    stride: Pixels = 1
    """Distance between offsets."""
    edges: Literal["wrap", "inside"] = "wrap"
    """wrap: ablations continue at the opposite edge of the image; inside: they stay within it."""
    fill: ClassVar[Fill] = "black"
    early_exit: ClassVar[bool] = False


class Area(NamedTuple):
    """All rectangles of up to so many pixels."""

    pixels: int


def threat_in_words(patch: Sequence[int] | Area, patches: int = 1) -> str:
    """Such as `32 x 32`, `2 patches of 32 x 32` or `rectangles of up to 501 pixels`.

    Args:
        patch: height and width in pixels, or the area of all rectangles.
        patches: how many at once.
    """
    one = f"rectangles of up to {patch.pixels} pixels" if isinstance(patch, Area) else "{} x {}".format(*patch)
    return one if patches == 1 else f"{patches} patches of {one}"


def _read_threat(value: Any) -> Size | Area:
    """`32`, `16x48` or `{pixels: 501}`, or what these became."""
    if isinstance(value, str) and (sides := re.fullmatch(r"(\d{1,9})x(\d{1,9})", value, re.ASCII)):
        value = int(sides[1]), int(sides[2])
    threat = Area(value["pixels"]) if isinstance(value, dict) and value.keys() == {"pixels"} else value
    lengths = threat if isinstance(threat, tuple) else (threat, threat)
    is_whole = all(isinstance(length, int) and not isinstance(length, bool) and length >= 1 for length in lengths)
    if not is_whole or (len(lengths) != 2 and not isinstance(threat, Area)):
        raise ValueError("should be a side such as 32, HEIGHTxWIDTH such as 16x48, or {pixels: 501}, all 1 or more")
    return threat if isinstance(threat, Area) else (lengths[0], lengths[1])


def _write_threat(threat: Size | Area) -> int | str | dict[str, int]:
    if isinstance(threat, Area):
        return {"pixels": threat.pixels}
    height, width = threat
    return height if height == width else f"{height}x{width}"


MaskedThreat = Annotated[
    Size | Area,
    PlainValidator(_read_threat),
    PlainSerializer(_write_threat),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}, {"type": "object"}]}),
]


class MaskAblation(Part):
    kind: Literal["mask"]
    """Hides one or two rectangles of a set; wherever the patch lies, one of them hides it."""
    threat: MaskedThreat
    """The patch: the side of a square such as 32, HEIGHTxWIDTH such as 16x48, or `{pixels: 501}` for all rectangles of
    up to so many pixels."""
    per_axis: Annotated[int, Strict()]
    """Number of masks along each axis, at least 2 (k of the paper). More masks are smaller, and cost more votes."""
    fill: Fill = "mean"
    """What hidden pixels become: black, or the mean of the normalisation, as in the paper."""
    threat_patches: Literal[1, 2] = 1
    """Number of patches at once."""
    early_exit: bool = False
    """Leave out votes that no certificate needs; they are null in the table."""

    @field_validator("per_axis")
    @classmethod
    def _leaves_something(cls, value: int) -> int:
        if value < 2:
            raise ValueError("would hide the whole image behind one mask; use 2 or more")
        return value

    @after(mode="after")
    def _is_affordable(self) -> Self:
        if self.threat_patches == 2 and self.per_axis > _MOST_PER_AXIS_OF_TWO:
            raise ValueError(
                f"per_axis: {self.per_axis} takes too many votes against two patches; use at most "
                f"{_MOST_PER_AXIS_OF_TWO}"
            )
        if self.threat_patches == 2 and isinstance(self.threat, Area):
            raise ValueError("threat_patches: 2 needs patches of one size; give threat a side or HEIGHTxWIDTH")
        return self

    @property
    def threat_text(self) -> str:
        """The threat in words."""
        return threat_in_words(self.threat, self.threat_patches)


Ablation = Annotated[WindowAblation | MaskAblation, Field(discriminator="kind")]


class _Holder(Part):
    ablation: Ablation


def ablation_of(
    ablation: Ablation | Mapping[str, Any],
) -> Ablation:
    """An ablation that a caller gives as the keys of a job file, such as {"kind": "column", "size": 4}.

    Raises:
        RequestError: a key is unknown, or its value is not valid.
    """
    if isinstance(ablation, WindowAblation | MaskAblation):
        return ablation
    raw = {"ablation": dict(ablation) if isinstance(ablation, Mapping) else ablation}
    try:
        return _Holder.model_validate(raw).ablation
    except ValidationError as error:
        raise RequestError("\n".join(found.line for found in mistakes_in(error, fields_of(_Holder), raw))) from None


def lengths_of(key: str, *ablations: Ablation) -> dict[str, list[int]]:
    """What must not be longer than the image's side, in pixels by key path.

    Args:
        key: of the ablations.
        ablations: of any kinds.
    """
    lengths: dict[str, list[int]] = {}
    for ablation in ablations:
        if isinstance(ablation, WindowAblation):
            lengths.setdefault(f"{key}.size", []).append(ablation.size)
        elif not isinstance(ablation.threat, Area):
            lengths.setdefault(f"{key}.threat", []).append(max(ablation.threat))
    return lengths


def accuracy_name(ablation: Ablation) -> str:
    """What the accuracy of the column `prediction` is called."""
    return "accuracy of double masking" if isinstance(ablation, MaskAblation) else "smoothed accuracy"


def ablation_in_words(ablation: Ablation) -> str:
    """One line, such as `column 19 stride 1` or `masks against 32 x 32, 6 per axis, mean`."""
    if isinstance(ablation, MaskAblation):
        early = ", early exit" if ablation.early_exit else ""
        return f"masks against {ablation.threat_text}, {ablation.per_axis} per axis, {ablation.fill}{early}"
    inside = "" if ablation.edges == "wrap" else f" {ablation.edges}"
    return f"{ablation.kind} {ablation.size} stride {ablation.stride}{inside}"
