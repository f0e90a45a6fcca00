"""What config.json and preprocessor_config.json of Hugging Face transformers say, as settings of a job.

    config.json                  model: architecture, options, classes, class_names
    preprocessor_config.json     preprocess: resize, squash, crop, interpolation, mean, std

Both are read as transformers reads them: a key that is left out has the default of its class. Whatever would make
another network or other pixels is refused.

Covered: ViTForImageClassification, DeiTForImageClassification with and without teacher, Dinov2ForImageClassification
with and without registers. Not covered: where the files lie (described_jobs.py); the weights (transformers_names.py).
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed, one_line, printable

_ACTIVATIONS = {  # timm's names; None: timm's default, which is exact GELU
    "gelu": None,
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def _one_side(value: Any) -> Any:
    """The side of a square that is written as a number, or as two equal ones."""
    return value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value


_Side = Annotated[int, BeforeValidator(_one_side), Field(ge=1)]
_Count = Annotated[int, Field(ge=1)]


class _Config(BaseModel):
    """config.json; each subclass has the defaults of a model type."""

    hidden_size: _Count = 768
    num_hidden_layers: _Count = 12
    num_attention_heads: _Count = 12
    head_dim: int | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: Annotated[float, Field(gt=0)]
    image_size: _Side = 224
    patch_size: _Side
    num_channels: _Count = 3
    qkv_bias: bool = True
    id2label: dict[int, str] | None = None
    num_labels: int | None = None
    problem_type: str | None = None
    quantization_config: dict[str, Any] | None = None


class _Vit(_Config):
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    patch_size: _Side = 16
    intermediate_size: _Count = 3072


class _Dinov2(_Config):
    layer_norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    patch_size: _Side = 14
    mlp_ratio: Annotated[float, Field(gt=0)] = 4
    use_swiglu_ffn: bool = False


class _Dinov2WithRegisters(_Dinov2):
    patch_size: _Side = 16
    num_register_tokens: Annotated[int, Field(ge=0)] = 4


_CONFIGS: dict[str, tuple[type[_Config], tuple[str, ...]]] = {  # by model type: its config, its classifiers
    "vit": (_Vit, ("ViTForImageClassification",)),
    "deit": (_Vit, ("DeiTForImageClassification", "DeiTForImageClassificationWithTeacher")),
    "dinov2": (_Dinov2, ("Dinov2ForImageClassification",)),
    "dinov2_with_registers": (_Dinov2WithRegisters, ("Dinov2WithRegistersForImageClassification",)),
}


def model_settings(content: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The settings of `model` that a config.json gives.

    Args:
        content: of the file.
        file: its name in errors.
    Raises:
        RequestError: it is of another network, or of one that does not classify; one line.
    """
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in _CONFIGS:
        raise RequestError(f"model.checkpoint: {file}: {_why_not(content)}")
    config_type, classifiers = _CONFIGS[kind]
    architectures = content.get("architectures")
    classifier = next((name for name in classifiers if architectures == [name]), None)
    if classifier is None:
        named = architectures if isinstance(architectures, list) else [architectures]
        what = f"is of {listed(named)}" if architectures else "names no architecture"
        raise RequestError(
            f"model.checkpoint: {file} {what}, and smoothcert reads {' and '.join(classifiers)}; name a checkpoint "
            "that classifies images"
        )
    config = _parsed(config_type, content, file)
    if (problem := _problem(config)) is not None:
        raise RequestError(f"model.checkpoint: {file}: {problem}")
    names = _class_names(config, file)
    return {
        "architecture": "transformers_vit",
        "options": _options(config, classifier),
        "classes": len(names),
        "class_names": [] if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names,
    }


def _why_not(content: Mapping[str, Any]) -> str:
    if isinstance(architecture := content.get("architecture"), str):  # timm's form
        return (
            f"is of a network of timm; write model.architecture: {printable(architecture)} and model.classes: "
            f"{content.get('num_classes')} into the job (`smoothcert init` does)"
        )
    kind = content.get("model_type")
    found = f"model_type {printable(repr(kind))} is not supported" if kind else "has no model_type"
    return (
        f"{found}; smoothcert reads {listed(_CONFIGS)} of transformers, and any classifier of timm (name it in "
        "model.architecture)"
    )


_C = TypeVar("_C", bound=BaseModel)


def _parsed(model: type[_C], content: Mapping[str, Any], file: str) -> _C:
    given = {key: value for key, value in content.items() if value is not None}  # null is the default, as there
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RequestError(f"model.checkpoint: {file}: {key}: {one_line(first['msg'])}; restore the file") from None


def _problem(config: _Config) -> str | None:
    """Why smoothcert would not compute what transformers computes."""
    if config.hidden_act not in _ACTIVATIONS:
        return f"hidden_act {printable(config.hidden_act)!r} is not supported; supported are {', '.join(_ACTIVATIONS)}"
    if config.hidden_size % config.num_attention_heads or config.head_dim not in (
        None,
        config.hidden_size // config.num_attention_heads,
    ):
        return "hidden_size is not num_attention_heads times the width of a head; timm has no such network"
    if config.problem_type in ("regression", "multi_label_classification"):
        return f"problem_type {config.problem_type} is not supported, because a vote is for one class"
    if config.quantization_config is not None:
        return "the weights are quantized (quantization_config); name the checkpoint that was quantized"
    return None


def _class_names(config: _Config, file: str) -> list[str]:
    """The name of each class; transformers' own default is LABEL_0, LABEL_1."""
    if config.id2label is None:
        return [f"LABEL_{number}" for number in range(2 if config.num_labels is None else config.num_labels)]
    names = config.id2label
    if sorted(names) != list(range(len(names))):
        raise RequestError(
            f"model.checkpoint: {file}: id2label must name the classes 0 to {len(names) - 1}; correct it"
        )
    return [names[number] for number in range(len(names))]


def _options(config: _Config, classifier: str) -> dict[str, Any]:
    """Arguments of transformers_vit; those with their default value are left out."""
    options: dict[str, Any] = {
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "norm_eps": config.layer_norm_eps,
    }
    if config.num_channels != 3:
        options["in_chans"] = config.num_channels
    if not config.qkv_bias:
        options["qkv_bias"] = False
    activation = _ACTIVATIONS[config.hidden_act]
    if isinstance(config, _Vit):
        options["mlp_width"] = config.intermediate_size
        if classifier == "DeiTForImageClassification":
            options["reg_tokens"] = 1  # its distillation token, which its head does not read
        if classifier == "DeiTForImageClassificationWithTeacher":
            options["head"] = "class_and_distillation"
    if isinstance(config, _Dinov2):
        width = int(config.hidden_size * config.mlp_ratio)
        options |= {"mlp_width": width, "init_values": 1.0, "head": "class_and_patches"}
        if config.use_swiglu_ffn:
            options |= {"mlp_width": (int(width * 2 / 3) + 7) // 8 * 8, "swiglu": True}
            activation = None
    if isinstance(config, _Dinov2WithRegisters) and config.num_register_tokens:
        options |= {"reg_tokens": config.num_register_tokens, "no_embed_class": True}
    return options | ({} if activation is None else {"act_layer": activation})


class Pixels(NamedTuple):
    """What a preprocessor_config.json says.

    Attributes:
        settings: of `preprocess`.
        unclear: for other keys of `preprocess`, why the file does not give them.
    """

    settings: dict[str, Any]
    unclear: dict[str, str]


KEYS = ("resize", "crop", "interpolation", "mean", "std")
"""Keys of `preprocess` on which the pixels depend."""


class _Processor(BaseModel):
    """preprocessor_config.json; each subclass has the defaults of an image processor."""

    do_resize: bool = True
    size: int | dict[str, int | None]
    resample: int
    do_center_crop: bool
    crop_size: int | dict[str, int]
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: float | list[float] = [0.5, 0.5, 0.5]
    image_std: float | list[float] = [0.5, 0.5, 0.5]


class _VitProcessor(_Processor):
    size: int | dict[str, int | None] = 224
    resample: int = 2
    do_center_crop: bool = False
    crop_size: int | dict[str, int] = 224


class _DeitProcessor(_Processor):
    size: int | dict[str, int | None] = 256
    resample: int = 3
    do_center_crop: bool = True
    crop_size: int | dict[str, int] = 224


class _BitProcessor(_Processor):
    size: int | dict[str, int | None] = {"shortest_edge": 224}
    resample: int = 3
    do_center_crop: bool = True
    crop_size: int | dict[str, int] = 224
    image_mean: float | list[float] = [0.48145466, 0.4578275, 0.40821073]
    image_std: float | list[float] = [0.26862954, 0.26130258, 0.27577711]


_PROCESSORS = {"ViT": _VitProcessor, "DeiT": _DeitProcessor, "Bit": _BitProcessor}


def pixel_settings(content: Mapping[str, Any], file: str, channels: int) -> Pixels:
    """The settings of `preprocess` that a preprocessor_config.json gives.

    Args:
        content: of the file.
        file: its name in errors.
        channels: of the network's images.
    Raises:
        RequestError: a value has another type; one line.
    """
    kind = content.get("image_processor_type") or content.get("feature_extractor_type")
    found = re.fullmatch(r"(ViT|DeiT|Bit)(?:ImageProcessor(?:Fast|Pil)?|FeatureExtractor)", str(kind))
    if found is None:
        return Pixels({}, dict.fromkeys(KEYS, f"{file}: image processor {printable(repr(kind))} is not supported"))
    processor = _parsed(_PROCESSORS[found[1]], content, file)
    settings: dict[str, Any] = {}
    unclear: dict[str, str] = {}
    _sizes(processor, file, settings, unclear, squashes=found[1] != "Bit")
    if processor.resample in _INTERPOLATIONS:
        settings["interpolation"] = _INTERPOLATIONS[processor.resample]
    else:
        unclear["interpolation"] = f"{file}: resample {processor.resample} is neither bilinear (2) nor bicubic (3)"
    if not processor.do_rescale or not math.isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-4):
        unclear |= dict.fromkeys(("mean", "std"), f"{file} does not scale pixels by 1 / 255")
    elif processor.do_normalize:
        settings |= {"mean": _channels(processor.image_mean, channels), "std": _channels(processor.image_std, channels)}
    else:
        settings |= {"mean": [0.0] * channels, "std": [1.0] * channels}
    return Pixels(settings, unclear)


def _sizes(
    processor: _Processor, file: str, settings: dict[str, Any], unclear: dict[str, str], *, squashes: bool
) -> None:
    """Resize and crop.

    Args:
        squashes: whether a size that is one number is a square, not a shorter side.
    """
    size = processor.size
    if isinstance(size, int):
        size = {"height": size, "width": size} if squashes else {"shortest_edge": size}
    size = {key: value for key, value in size.items() if value is not None}
    square = size.get("height") if size.keys() == {"height", "width"} and len(set(size.values())) == 1 else None
    short = size.get("shortest_edge") if len(size) == 1 else None
    if not processor.do_resize:
        settings["resize"] = None
    elif square is not None:
        settings |= {"resize": square, "squash": True}
    elif short is not None:
        settings["resize"] = short
    else:
        unclear["resize"] = f"{file}: size {printable(str(size))} is neither a square nor a shorter side"
    crop: int | dict[str, int] | None = square if processor.do_resize else None
    if processor.do_center_crop:
        crop = processor.crop_size
    if isinstance(crop, dict):
        crop = crop.get("height") if crop.get("height") == crop.get("width") else None
    if crop is None:
        unclear["crop"] = f"{file} does not cut a square out of the image"
    else:
        settings["crop"] = crop


def _channels(values: float | list[float], channels: int) -> list[float]:
    return values if isinstance(values, list) else [values] * channels
