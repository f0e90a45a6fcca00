"""The job file: what is certified, with which model, against which ablations, and where the result goes.

A job is a frozen pydantic model; its values are checked when it is made. A relative path in a job file starts from the
file's own folder, one in `--set key.path=value` from the current folder.

Not covered: which fields determine the votes (identity.py), which tars a pattern means (shards.py).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, Strict, field_validator, model_validator

from smoothcert.manifests.ablation import Ablation, Pixels, lengths_of
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.locations import Locations, Names, Output, Weights
from smoothcert.manifests.yaml_file import Complete, Part, from_options, load_file

Count = Annotated[int, Strict(), Field(ge=1)]
# "auto" in the file is None in Python: decided where the hardware is known.
Auto = BeforeValidator(lambda value: None if value == "auto" else value)
# A single text or mapping is a list of one.
OneOrMore = BeforeValidator(lambda value: [value] if isinstance(value, str | dict) else value)
# A number for each channel: three for RGB, one (which needs no brackets) for gray.
Channels = Annotated[
    tuple[float, ...], BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value)
]


class Images(Part):
    shards: Locations
    """Tars: a path, folder, glob or brace pattern, an index file (`_info.json`, wids), or a list of these. They may
    lie in a folder, or at s3://, https://, hf://datasets/OWNER/NAME/, gs:// or az://."""
    split: str | None = None
    """Which split of an index file that has several."""
    image: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """Suffixes of the tar members that are images."""
    label: str | None = "cls"
    """Suffix of the tar member that holds the label as text, or `json:FIELD`; null for unlabelled images."""
    label_names: Names = None
    """If labels are names: a file with the name of each class in order, `imagenet-1k` for WordNet ids, or a list."""
    first_label: Literal[0, 1] = 0
    """Label of the first class: 1 if labels count from 1."""
    limit: Count | None = None
    """Number of images to take, the first ones; such a run is marked PARTIAL."""
    version: str | None = None
    """Free text to distinguish data of equal names and sizes; part of the identity."""

    @field_validator("shards", "image")
    @classmethod
    def _not_empty(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError("is empty; name at least one")
        return value

    @field_validator("label")
    @classmethod
    def _lower_member(cls, value: str | None) -> str | None:
        """webdataset turns suffixes into lower case."""
        if value is None:
            return None
        member, colon, field = value.partition(":")
        return member.lower().removeprefix(".") + colon + field

    @model_validator(mode="after")
    def _names_are_of_labels(self) -> Self:
        if self.label_names is not None and self.label is None:
            raise ValueError("label_names: there are no labels to name (label is null); remove one of them")
        if self.label_names is not None and self.first_label != 0:
            raise ValueError("first_label: names are counted by label_names; remove one of them")
        return self

    @field_validator("image")
    @classmethod
    def _plain_suffixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(suffix.lower().removeprefix(".") for suffix in value)


CODE_PREFIX = "python:"
"""An architecture whose name starts so is a function of the user's own code."""


class Network(Part):
    """The fields that a voting and a learning model share."""

    architecture: str
    """Name of any classifier of timm, built for crop x upsample pixels; only VisionTransformers can drop tokens. Or
    python:package.module:factory, a function of your own code; it runs only with --allow-code."""
    code_version: str | None = None
    """Free text that names the version of that code; part of the identity."""
    options: dict[str, Any] = Field(default={})
    """Further arguments of timm.create_model, such as {patch_size: 4, depth: 6}."""
    checkpoint_key: str | None = None
    """The state dict to load if a checkpoint has several; null: the usual one (`plan` shows which)."""
    ignore: Annotated[tuple[str, ...], OneOrMore] = ()
    """Patterns (`*`, `?`, `[abc]`) for the names of tensors to leave out, such as ["criterion.*"]."""
    classes: Annotated[int, Strict(), Field(ge=2, le=65536)]
    """Number of classes of the head."""
    masked_tokens: Literal["drop", "keep"] = "drop"
    """drop: hidden tokens are left out; keep: every token is computed."""

    @property
    def is_code(self) -> bool:
        """Whether building the network runs code that the file names."""
        return self.architecture.startswith(CODE_PREFIX)

    @field_validator("architecture")
    @classmethod
    def _names_a_function(cls, value: str) -> str:
        if value.startswith(CODE_PREFIX) and not re.fullmatch(r"python:\w+(\.\w+)*:\w+", value):
            raise ValueError("is no function of a module; write it as python:package.module:factory")
        return value

    @model_validator(mode="after")
    def _code_has_a_version(self) -> Self:
        if self.is_code and self.code_version is None:
            raise ValueError("code_version: missing; name the version of the code, so that other code is another run")
        if not self.is_code and self.code_version is not None:
            raise ValueError(f"code_version: {self.architecture} is no code of yours; leave code_version out")
        return self

    @field_validator("options")
    @classmethod
    def _leave_to_the_job(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := {"img_size", "num_classes", "pretrained", "checkpoint_path"} & value.keys():
            raise ValueError(f"{sorted(taken)} follow from crop, classes and checkpoint; remove them here")
        return value


NumberFormat = Literal["float32", "bfloat16", "float16", "int8"]


class Model(Network):
    checkpoint: Weights
    """File with the weights, safetensors or a torch file that holds only tensors; or hf-hub:OWNER/NAME, timm:NAME. A
    name or a folder whose config.json is of transformers gives all other keys of `model`, and `preprocess`."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, for reports; not part of the identity."""
    dtype: NumberFormat = "float32"
    """Number format of the transformer blocks; of other networks, of all layers but the last. int8 is for products in
    plain transformer blocks on a CPU."""

    @model_validator(mode="after")
    def _names_each_class(self) -> Self:
        if self.class_names and len(self.class_names) != self.classes:
            raise ValueError(f"class_names has {len(self.class_names)} names for {self.classes} classes; give one each")
        return self


MAX_OF_UNIT = 2.0
"""No mean or std of pixels from 0 to 1 is larger."""


class Preprocess(Part):
    resize: Pixels | None = 256
    """Length of the shorter side after resizing; null: images already have the crop's size."""
    squash: bool = False
    """Resize to a square of `resize` x `resize` pixels, whatever the shape of the image."""
    crop: Pixels = 224
    """Side of the square that is cut from the centre and certified, in pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resize, antialiased."""
    orient: bool = False
    """Turn images upright as their EXIF orientation says, before the resize; false: take the pixels as stored."""
    decoder: Literal["pillow", "nvjpeg"] = "pillow"
    """nvjpeg: JPEGs of usual form are decoded on the actor's GPU, to slightly other pixels; Pillow decodes all other
    files (PNG, CMYK and so on), and resizes and crops. pillow: it does all."""
    mean: Channels = (0.485, 0.456, 0.406)
    """Subtracted from pixels / 255: three numbers for RGB; one for gray, to which Pillow converts them (L)."""
    std: Channels = (0.229, 0.224, 0.225)
    """Divides the difference; as many numbers as `mean`."""
    upsample: Count = 1
    """Repeats every pixel this often along both sides, after the ablation; the network gets crop x upsample pixels."""

    @model_validator(mode="after")
    def _squashes_to_a_size(self) -> Self:
        if self.squash and self.resize is None:
            raise ValueError("squash: true resizes to a square, but resize is null; set it, or leave squash out")
        return self

    @property
    def network_side(self) -> int:
        """Side of the images that the network sees, in pixels."""
        return self.crop * self.upsample

    @property
    def channels(self) -> int:
        """Channels of the certified pixels: 3 for RGB, 1 for gray."""
        return len(self.mean)

    @field_validator("mean", "std")
    @classmethod
    def _gray_or_rgb(cls, value: Channels) -> Channels:
        if len(value) not in (1, 3):
            raise ValueError("must have three numbers for RGB images, or one for gray images")
        if max(map(abs, value)) > MAX_OF_UNIT:
            raise ValueError("is for pixels from 0 to 255, but pixels are from 0 to 1 here; divide it by 255")
        return value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Channels) -> Channels:
        if min(value) <= 0:
            raise ValueError("must be above 0 in each channel")
        return value


class Execution(Part):
    actors: Annotated[Count | None, Auto] = None
    """Number of actors that work at once."""
    gpus_per_actor: Annotated[Annotated[float, Field(ge=0)] | None, Auto] = None
    """GPUs of one actor; a fraction shares a GPU, 0 computes on the CPU."""
    cpus_per_actor: Annotated[Annotated[float, Field(gt=0)] | None, Auto] = None
    """CPU cores of one actor."""
    images_per_batch: Annotated[Count | None, Auto] = None
    """Images in one batch of votes."""
    memory_gib: Annotated[Annotated[float, Field(gt=0)] | None, Auto] = None
    """Memory of one actor in GiB. Models of a suite whose weights do not fit half of it take turns."""
    max_attempts: Count = 4
    """Number of failed attempts after which a shard is given up."""

    @property
    def memory_bytes(self) -> int | None:
        """`memory_gib` in bytes."""
        return None if self.memory_gib is None else int(self.memory_gib * 2**30)


class Storage(Part):
    endpoint_url: str | None = None
    """S3-compatible server; null for AWS."""
    region: str | None = None
    """Region of the bucket."""
    profile: str | None = None
    """Profile of the machine's credentials file."""
    anonymous: bool = False
    """Do not sign requests: for public buckets, without credentials. The output must then accept unsigned requests,
    too, or be a folder."""
    requester_pays: bool = False
    """Pay for requests and transfer, as requester-pays buckets demand."""

    @model_validator(mode="after")
    def _is_one_identity(self) -> Self:
        if self.anonymous and self.profile is not None:
            raise ValueError("anonymous: true uses no credentials, but a profile is named; remove one of them")
        if self.anonymous and self.requester_pays:
            raise ValueError("requester_pays needs credentials to bill, but anonymous is true; set one of them")
        return self


class Job(Part):
    name: str
    """Shown in tables."""
    images: Images
    """The tars, and what is in them."""
    model: Model
    """The network that votes."""
    preprocess: Preprocess = Preprocess()
    """From an image to the pixels that are certified."""
    ablation: Ablation
    """What each vote shows of the image."""
    clean: bool = True
    """Also classify the whole image."""
    patches: tuple[Pixels, ...] = ()
    """Sides of the square patches that the summary shows; of masks it shows their threat instead."""
    output: Output
    """Folder that holds the runs, or s3://BUCKET/KEY."""
    max_error_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest share of images that may lack votes or, in a labelled job, a usable label; above it the exit code is 1,
    even if the run is complete.
    """
    execution: Execution = Execution()
    """Who computes; not part of the identity."""
    storage: Storage = Storage()
    """How to reach S3; not part of the identity."""

    @model_validator(mode="after")
    def _fits_the_image(self) -> Self:
        refuse_misfits(self.preprocess, lengths_of("ablation", self.ablation) | {"patches": self.patches})
        refuse_other_channels(self.model, self.preprocess)
        return self


def refuse_code(model: Network, *, allow_code: bool) -> None:
    """Refuse a network of the user's own code, unless it is allowed.

    Raises:
        RequestError: it is not allowed.
    """
    if model.is_code and not allow_code:
        raise RequestError(
            f"model.architecture: {model.architecture} runs code that this file names; read that code, then allow it "
            "with --allow-code (certify, plan, verify)"
        )


def refuse_misfits(preprocess: Preprocess, lengths: Mapping[str, Sequence[int]]) -> None:
    """Refuse ablations and patches that are larger than the image.

    Args:
        preprocess: holds the size of the image.
        lengths: in pixels, by key path.
    Raises:
        ValueError: a length is larger than the image, or nothing is left to crop.
    """
    crop = preprocess.crop
    frame = f"the image is {crop} x {crop} (preprocess.crop)"
    for key, pixels in lengths.items():
        if large := [length for length in pixels if length > crop]:
            raise ValueError(f"{key}: {', '.join(map(str, large))} too large: {frame}; use at most {crop}")
    if preprocess.resize is not None and preprocess.resize < crop:
        raise ValueError(
            f"preprocess.resize: {preprocess.resize} leaves nothing to crop: {frame}; "
            f"use at least {crop}, or null for images of exactly that size"
        )


def refuse_other_channels(model: Network, preprocess: Preprocess) -> None:
    """Refuse a network whose channels differ from those of the preprocessed images.

    Raises:
        ValueError: mean and std have different lengths, or `in_chans` of the network (timm's default: 3) differs.
    """
    mean, std = len(preprocess.mean), len(preprocess.std)
    if mean != std:
        raise ValueError(
            f"preprocess: mean has {mean} number(s), std has {std}; give each three numbers for RGB images, or one "
            "for gray images"
        )
    takes = model.options.get("in_chans", 3)
    if type(takes) is not int:
        raise ValueError(f"model.options: in_chans is {takes!r}; set it to 3 for RGB images, or 1 for gray ones")
    if takes != mean:
        gives = {1: "one number, so images are gray", 3: "three numbers, so images are RGB"}[mean]
        remedy = {1: "set mean and std to one number each", 3: "set mean and std to three numbers each"}
        raise ValueError(
            f"model.options: the network takes {takes} channel(s) (in_chans), but preprocess.mean has {gives}; "
            f"{remedy.get(takes, 'set in_chans to 3 for RGB images, or 1 for gray ones')}"
        )


def storage_of(settings: Sequence[str]) -> Storage:
    """Read `--storage KEY=VALUE ...`.

    Raises:
        RequestError: a key is unknown, or its value is not valid.
    """
    return from_options(Storage, "--storage", settings)


def load_job(path: str | Path, overrides: Sequence[str] = (), *, complete: Complete = lambda _: None) -> Job:
    """Read a job file.

    Args:
        path: a YAML file.
        overrides: `key.path=value` each, the value as YAML; later ones win.
        complete: adds settings that follow from others.
    Raises:
        RequestError: a line for each mistake, with file, key path, value and remedy.
    """
    return load_file(Job, path, overrides, kind="job file", complete=complete)
