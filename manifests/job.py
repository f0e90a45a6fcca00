"""The job file: what is certified, with which model, against which ablations, and where it goes.

A job is a frozen pydantic model; what it holds has been checked. A relative path in a job file starts
from the file's own folder, one in `--set key.path=value` from the current directory.

Not covered: which fields determine the votes (identity.py), which tars a pattern means (shards.py).
"""

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)

from manifests.errors import RequestError

Pixels = Annotated[int, Strict(), Field(ge=1)]
Count = Annotated[int, Strict(), Field(ge=1)]
# "auto" in the file is None in Python: decided where the hardware is known.
_Auto = BeforeValidator(lambda value: None if value == "auto" else value)
Rgb = tuple[float, float, float]
HUB_NAMES = ("hf-hub:", "timm:")
"""What a checkpoint begins with that the Hugging Face Hub has."""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


class Images(_Part):
    shards: str | tuple[str, ...]
    """Tars: a path, folder, glob or brace pattern, an index file (`_info.json`, wids), or a list of these."""
    split: str | None = None
    """Which split of an index file that has several."""
    image: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """Member suffixes that are the image."""
    label: str | None = "cls"
    """Member suffix with the label as text, or `json:FIELD`; null for unlabelled images."""
    limit: Count | None = None
    """Only the first so many images; such a run is marked PARTIAL."""
    version: str | None = None
    """Free text that tells apart data of equal names and sizes; part of the identity."""

    @field_validator("shards", "image")
    @classmethod
    def _not_empty(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("is empty; name at least one")
        return value

    @field_validator("label")
    @classmethod
    def _lower_member(cls, value: str | None) -> str | None:
        """webdataset gives suffixes in lower case."""
        if value is None:
            return None
        member, colon, field = value.partition(":")
        return member.lower().removeprefix(".") + colon + field

    @field_validator("image")
    @classmethod
    def _plain_suffixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(suffix.lower().removeprefix(".") for suffix in value)


class Model(_Part):
    architecture: str
    """Name of any classifier of timm, built for crop x upsample pixels; VisionTransformers alone can drop tokens."""
    options: dict[str, Any] = {}
    """Further arguments of timm.create_model, such as {patch_size: 4, depth: 6}."""
    checkpoint: str
    """File with the weights, safetensors or a torch file of tensors alone; or hf-hub:OWNER/NAME, timm:NAME."""
    checkpoint_key: str | None = None
    """Which state dict of a checkpoint with several; null takes the usual one (`plan` shows which)."""
    classes: Annotated[int, Strict(), Field(ge=2, le=65536)]
    """Number of classes of the head."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the transformer blocks, or of all but the last layer."""
    masked_tokens: Literal["drop", "keep"] = "drop"
    """drop: hidden tokens are left out; keep: every token is computed, hidden pixels are black."""

    @field_validator("options")
    @classmethod
    def _leave_to_the_job(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := {"img_size", "num_classes", "pretrained", "checkpoint_path"} & value.keys():
            raise ValueError(f"{sorted(taken)} follow from crop, classes and checkpoint; remove them here")
        return value


class Preprocess(_Part):
    resize: Pixels | None = 256
    """Length the shorter side is resized to; null: images already have the crop's size."""
    crop: Pixels = 224
    """Side of the square that is cut from the centre and certified."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resize, antialiased."""
    mean: Rgb = (0.485, 0.456, 0.406)
    """Subtracted from pixels / 255, a channel each."""
    std: Rgb = (0.229, 0.224, 0.225)
    """Divides what remains, a channel each."""
    upsample: Count = 1
    """After the ablation a pixel is repeated so often along both sides; the network is built for crop x upsample."""

    @property
    def network_side(self) -> int:
        """Side of the images that the network sees, in pixels."""
        return self.crop * self.upsample

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Rgb) -> Rgb:
        if min(value) <= 0:
            raise ValueError("must be above 0 in each channel")
        return value


class Ablation(_Part):
    kind: Literal["column", "row", "block"]
    """Shape of the visible pixels."""
    size: Pixels
    """Width of the column, height of the row, side of the block."""
    stride: Pixels = 1
    """Distance between offsets."""
    edges: Literal["wrap", "inside"] = "wrap"
    """wrap: ablations go around the image's edge; inside: they stay within it."""


class Execution(_Part):
    actors: Annotated[Count | None, _Auto] = None
    """Actors at work at once."""
    gpus_per_actor: Annotated[Annotated[float, Field(ge=0)] | None, _Auto] = None
    """GPUs of one actor; a fraction shares one."""
    cpus_per_actor: Annotated[Annotated[float, Field(gt=0)] | None, _Auto] = None
    """CPU cores of one actor."""
    images_per_batch: Annotated[Count | None, _Auto] = None
    """Images that are voted on together."""
    max_attempts: Count = 4
    """Failed attempts after which a shard is given up."""


class Storage(_Part):
    endpoint_url: str | None = None
    """S3-compatible server; null for AWS."""
    region: str | None = None
    """Region of the bucket."""
    profile: str | None = None
    """Profile of the machine's credentials file."""


class Job(_Part):
    name: str
    """Shown in tables."""
    images: Images
    model: Model
    preprocess: Preprocess = Preprocess()
    ablation: Ablation
    clean: bool = True
    """Also classify the whole image."""
    patches: tuple[Pixels, ...] = ()
    """Sides of the square patches that the summary shows."""
    output: str
    """Folder that holds the runs."""
    max_error_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """With a larger share of images without votes the exit code is 1, although the run is complete."""
    execution: Execution = Execution()
    storage: Storage = Storage()

    @model_validator(mode="after")
    def _fits_the_image(self) -> Self:
        crop = self.preprocess.crop
        frame = f"the image is {crop} x {crop} (preprocess.crop)"
        if self.ablation.size > crop:
            raise ValueError(f"ablation.size: {self.ablation.size} is too large: {frame}; use at most {crop}")
        if large := [patch for patch in self.patches if patch > crop]:
            raise ValueError(f"patches: {large} too large: {frame}; use at most {crop}")
        if self.preprocess.resize is not None and self.preprocess.resize < crop:
            raise ValueError(
                f"preprocess.resize: {self.preprocess.resize} leaves nothing to crop: {frame}; "
                f"use at least {crop}, or null for images of exactly that size"
            )
        return self


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file.

    Args:
        path: a YAML file.
        overrides: `key.path=value` each, the value as YAML; later ones win.
    Raises:
        RequestError: a line for each mistake, with file, key path, value and remedy.
    """
    path = Path(path)
    raw = _anchor_paths(_read_yaml(path), path.absolute().parent)
    for override in overrides:
        _merge(raw, _anchor_paths(_parse_override(override), Path.cwd()))
    try:
        return Job.model_validate(raw)
    except ValidationError as error:
        raise RequestError("\n".join(f"{path}: {line}" for line in _describe(error))) from None


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error instead of a silent loss."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {sorted(twice)[0]!r} comes twice; keep one", node.start_mark
            )
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  a SafeLoader
    except yaml.YAMLError as error:
        raise RequestError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RequestError(f"{path}: cannot read the job file: {reason}; name a YAML file") from None
    raw = _parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise RequestError(f"{path}: a job file is a mapping of keys such as `name:` and `images:`")
    return raw


def _parse_override(override: str) -> dict[str, Any]:
    key_path, equals, text = override.partition("=")
    if not equals or not key_path or "" in key_path.split("."):
        raise RequestError(f"--set {override}: expected key.path=value, such as ablation.stride=4")
    value = _parse_yaml(text, f"--set {override}")
    for key in reversed(key_path.split(".")):
        value = {key: value}
    return dict(value)


def _merge(into: dict[str, Any], override: dict[str, Any]) -> None:
    for key, value in override.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _anchor_paths(raw: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make relative paths absolute in the fields that hold paths; URLs and names of the hub stay."""

    def anchored(value: Any) -> Any:
        if isinstance(value, list):
            return [anchored(item) for item in value]
        if not isinstance(value, str) or not value or "://" in value or value.startswith(HUB_NAMES):
            return value
        return os.path.normpath(base / Path(value).expanduser())

    for section, key in ((raw.get("images"), "shards"), (raw.get("model"), "checkpoint"), (raw, "output")):
        if isinstance(section, dict) and key in section:
            section[key] = anchored(section[key])
    return raw


def _describe(error: ValidationError) -> Iterator[str]:
    """One line a mistake: key path, value, remedy."""
    for mistake in error.errors():
        keys = [str(key) for key in mistake["loc"]]
        # pydantic appends the branch of a union ("str", "tuple[str, ...]"): not a key of the file.
        known = list(_key_paths(Job))
        while len(keys) > 1 and ".".join(keys) not in known and mistake["type"] != "extra_forbidden":
            keys.pop()
        path = ".".join(keys)
        if mistake["type"] == "extra_forbidden":
            yield f"{path}: unknown key; {_suggest(path, known)}"
        elif mistake["type"] == "missing":
            yield f"{path}: missing; add it ({_description(keys)})"
        elif not path:
            yield mistake["msg"].removeprefix("Value error, ")
        else:
            message = mistake["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
            yield f"{path}: {mistake['input']!r} {message}"


def _key_paths(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in part.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _key_paths(field.annotation, f"{prefix}{name}.")


def _suggest(path: str, known: Iterable[str]) -> str:
    parent, _, name = path.rpartition(".")
    siblings = [key for key in known if key.rpartition(".")[0] == parent]
    elsewhere = [key for key in known if key.rpartition(".")[2] == name]
    if near := elsewhere or difflib.get_close_matches(path, siblings, n=1, cutoff=0.5):
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(key.rpartition('.')[2] for key in siblings)}"


def _description(keys: Sequence[str]) -> str:
    part: Any = Job
    for key in keys[:-1]:
        part = part.model_fields[key].annotation
    field = part.model_fields.get(keys[-1])
    return (field.description if field and field.description else "required").rstrip(".")
