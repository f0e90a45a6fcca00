"""What MODEL says of itself: which network it is, what it sees, and whether it was trained on ablations.

    resnet50, vit_tiny_patch16_224.augreg_in21k_ft_in1k    weights that timm knows
    timm:NAME, hf-hub:OWNER/NAME, a folder or its file     config.json, of timm or of transformers
    a file of weights                                      what `smoothcert finetune` wrote into it; else the shapes

Not covered: the images (images.py); how a job is written (job_file.py).
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Network
from smoothcert.manifests.locations import Anchored, name_of
from smoothcert.manifests.names import listed, one_line
from smoothcert.manifests.training import Cutout, TrainedMask, TrainedWindow
from smoothcert.workers.networks.checkpoint_files import require_checkpoint
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, has_tokens
from smoothcert.workers.networks.described_jobs import complete, config_of, weights_of
from smoothcert.workers.networks.likely_vit import likely_vit
from smoothcert.workers.networks.normaliser import saved_normaliser
from smoothcert.workers.networks.trained_with import TrainedWith, trained_with
from smoothcert.workers.networks.weights import read_weights
from smoothcert.workers.storage.hub import is_hub_name
from smoothcert.workers.storage.store import Store

_INTERPOLATIONS = ("bilinear", "bicubic")
_TIMM_CROP_SHARE = 0.875  # timm's crop_pct where a config gives none
_SIDE_OF_2_PERCENT = 32 / 224  # of a square patch, as a share of the image's
_NOT_TRAINED = (
    "Nothing says that these weights were trained on ablations. Weights that were not certify far fewer images; "
    "`smoothcert finetune` trains them (docs/training.md)."
)
_PERHAPS_TRAINED = (
    "The file has the layout of the reference implementation, so these weights were probably trained on ablations. "
    "It does not say on which: write them into `ablation`."
)

Content = dict[str, Any]


@dataclass(frozen=True)
class Described:
    """What a job says about a network.

    Attributes:
        name: of the network, for people.
        model, preprocess: sections of the job; what follows from the checkpoint by itself is left out.
        side: of the network's images, in pixels.
        classes: number of classes.
        class_names: their names; empty if unknown.
        trained: a sentence about its training.
        ablation: with which it was trained; None if that is unknown.
        comments: sentences by key path.
        notices: what the user must check.
    """

    name: str
    model: Content
    preprocess: Content
    side: int
    classes: int
    class_names: tuple[str, ...] = ()
    trained: str = _NOT_TRAINED
    ablation: Content | None = None
    comments: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def describe(source: str, written: Mapping[str, Any], store: Store) -> Described:
    """Find out what a job must say about a network.

    Args:
        source: MODEL, as the user wrote it.
        written: sections `model` and `preprocess` that the user gave; they win.
        store: the store that holds the weights.
    Raises:
        RequestError: there is no such network, it does not classify, or it does not say enough of itself.
    """
    is_name = "/" not in source and ":" not in source and not Path(source).exists()
    if is_name and timm.is_model(source):
        try:
            of_timm = asdict(timm.get_pretrained_cfg(source))
        except RuntimeError:  # no such tag
            known = timm.list_pretrained(source.partition(".")[0])
            raise RequestError(f"MODEL: timm has no {source}; it has {listed(known) or 'no weights'}") from None
        return _with_tokens_kept(_of_timm(of_timm, source))
    if is_name:
        near = difflib.get_close_matches(source, timm.list_models(), n=1)
        remedy = f"did you mean {near[0]}?" if near else "timm.list_models() lists the names"
        raise RequestError(f"MODEL: {source} is neither a file nor a network of timm; {remedy}")
    checkpoint = Anchored(from_hub=True).anchor(source, Path.cwd())
    if "architecture" in written.get("model", {}):
        return _with_tokens_kept(_of_weights(checkpoint, written["model"], store))
    config = config_of(checkpoint)
    if config is None:
        return _with_tokens_kept(_of_weights(checkpoint, {}, store))
    if "architecture" in config:
        try:
            found = _of_timm_config(config, weights_of(checkpoint))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(
                f"MODEL: config.json of {source} is damaged ({one_line(error)}); fetch it again"
            ) from None
        return _with_tokens_kept(found)
    return _of_transformers(checkpoint, written)


def _of_timm(config: Content, source: str) -> Described:
    """Weights that timm knows by a name such as resnet50.a1_in1k."""
    hub_id = config.get("hf_hub_id")
    if not hub_id:
        raise RequestError(
            f"MODEL: timm has no weights of {source}; name a file of weights, and --set model.architecture={source}"
        )
    checkpoint = f"timm:{hub_id.removeprefix('timm/')}" if hub_id.startswith("timm/") else f"hf-hub:{hub_id}"
    return _of_timm_config({"architecture": config["architecture"], "pretrained_cfg": config}, checkpoint)


def _of_timm_config(config: Content, checkpoint: str) -> Described:
    """A config.json of timm; older ones hold the keys of pretrained_cfg themselves."""
    pretrained = config.get("pretrained_cfg", config)
    architecture, classes = str(config["architecture"]), config.get("num_classes", pretrained.get("num_classes"))
    if not classes:
        raise RequestError(
            f"MODEL: {architecture} has no classes: its weights end before a classifier; name a network that "
            "classifies, or train one with `smoothcert finetune`"
        )
    options = {
        key: value
        for key, value in config.get("model_args", {}).items()
        if key not in ("img_size", "num_classes", "pretrained", "checkpoint_path")
    }
    names = tuple(map(str, config.get("label_names") or pretrained.get("label_names") or ()))
    named = names if len(names) == classes else ()
    return Described(
        name=_name_of(checkpoint),
        model=_model(checkpoint, architecture, options, classes, class_names=list(named)),
        preprocess=_pixels_of_timm(pretrained),
        side=_side_of(pretrained),
        classes=classes,
        class_names=named,
        comments={"preprocess": f"As timm's settings of {architecture} say."},
    )


def _model(checkpoint: str, architecture: str, options: Content, classes: int, **others: Any) -> Content:
    """The section `model`, without what is empty."""
    keys = {"checkpoint": checkpoint, "architecture": architecture, "options": options, "classes": classes} | others
    return {key: value for key, value in keys.items() if value}


def _name_of(checkpoint: str) -> str:
    return checkpoint if is_hub_name(checkpoint) else name_of(checkpoint)


def _side_of(pretrained: Mapping[str, Any]) -> int:
    return int(pretrained.get("input_size", (3, 224, 224))[-1])


def _pixels_of_timm(pretrained: Mapping[str, Any]) -> Content:
    """`preprocess` as timm's pretrained_cfg gives it (timm.data.create_transform for evaluation)."""
    side, crop_share = _side_of(pretrained), pretrained.get("crop_pct") or _TIMM_CROP_SHARE
    mode, interpolation = pretrained.get("crop_mode") or "center", pretrained.get("interpolation") or "bilinear"
    if mode not in ("center", "squash") or interpolation not in _INTERPOLATIONS:
        what = f"interpolation {interpolation}" if interpolation not in _INTERPOLATIONS else f"crop_mode {mode}"
        raise RequestError(
            f"MODEL: its settings say {what}, which a job cannot express; write the job by hand, as README shows"
        )
    return {
        "resize": math.floor(side / crop_share),
        **({"squash": True} if mode == "squash" else {}),
        "crop": side,
        "interpolation": interpolation,
        "mean": list(pretrained.get("mean") or (0.485, 0.456, 0.406)),
        "std": list(pretrained.get("std") or (0.229, 0.224, 0.225)),
    }


def _of_transformers(checkpoint: str, written: Mapping[str, Any]) -> Described:
    """The job names the checkpoint alone; what follows from its configs stands in comments."""
    content: Content = {
        "model": {"checkpoint": checkpoint} | written.get("model", {}),
        "preprocess": dict(written.get("preprocess", {})),
    }
    complete(content, learns=False)
    model, pixels = content["model"], content["preprocess"]
    says = [f"{key} {value}" for key, value in pixels.items()]
    return Described(
        name=_name_of(checkpoint),
        model={"checkpoint": checkpoint},
        preprocess={},
        side=pixels["crop"],
        classes=model["classes"],
        class_names=tuple(model["class_names"]),
        comments={
            "model": f"Its config.json gives the network and its {model['classes']:,} classes; its "
            f"preprocessor_config.json gives: {', '.join(says)}."
        },
    )


def _of_weights(checkpoint: str, written: Mapping[str, Any], store: Store) -> Described:
    """A file of weights: what it says of its training, or else what its tensors look like."""
    require_checkpoint(checkpoint, store)
    with store.local(checkpoint) as file:
        note = trained_with(file)
        if note is not None:
            return _of_training(note, checkpoint)
        key, layout = recognise(file, written.get("checkpoint_key"), url=checkpoint)
        tensors = read_weights(file, key, checkpoint)
    likely = likely_vit({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    architecture = written.get("architecture") or (None if likely is None else likely.architecture)
    if architecture is None:
        raise RequestError(
            f"MODEL: the names of the tensors in {checkpoint} do not show which network it is; add "
            "--set model.architecture=NAME, a classifier of timm"
        )
    config = timm.get_pretrained_cfg(architecture)
    if config is None:
        raise RequestError(f"model.architecture: timm knows no {architecture!r}; see timm.list_models()")
    of_timm = asdict(config)
    own = likely if likely is not None and likely.architecture == architecture else None
    classes = written.get("classes") or (own and own.classes) or _classes_of(tensors, of_timm)
    if classes is None:
        raise RequestError(f"MODEL: {checkpoint} does not show how many classes there are; add --set model.classes=N")
    side = (own and own.side) or _side_of(of_timm)
    pixels = _pixels_of_timm(of_timm | {"input_size": (3, side, side)})
    saved = saved_normaliser(tensors, channels=3)
    guess = (
        ""
        if "architecture" in written
        else " The shapes of its tensors show the network: check that it is the right one."
    )
    return Described(
        name=_name_of(checkpoint),
        model=_model(checkpoint, architecture, {} if own is None else own.options, classes),
        preprocess=pixels | saved,
        side=side,
        classes=classes,
        trained=(_PERHAPS_TRAINED if layout.startswith("reference layout") else _NOT_TRAINED) + guess,
        comments={
            "preprocess": f"{'Mean and std are those in the file; the rest is' if saved else 'This is'} what timm says "
            f"of {architecture}; correct it if the weights were trained otherwise."
        },
        notices=()
        if saved
        else (
            f"preprocess: mean {pixels['mean']} and std {pixels['std']} are timm's for {architecture}; correct them if "
            "these weights were trained with others",
        ),
    )


def _classes_of(tensors: Mapping[str, torch.Tensor], of_timm: Mapping[str, Any]) -> int | None:
    """Rows of the last layer, whose name timm knows."""
    head = of_timm.get("classifier")
    if not isinstance(head, str):
        return None
    sizes = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith(f"{head}.weight") and tensor.ndim > 1}
    return sizes.pop() if len(sizes) == 1 else None


def _of_training(note: TrainedWith, checkpoint: str) -> Described:
    """Weights of `smoothcert finetune`."""
    kinds = [*map(_trained_under, note.ablation or ())] or ["whole images"]
    return Described(
        name=_name_of(checkpoint),
        model=_model(
            checkpoint,
            note.architecture,
            note.options,
            note.classes,
            masked_tokens="keep" if note.masked_tokens == "keep" else None,
        ),
        preprocess=note.preprocess.model_dump(mode="json", exclude_defaults=True) | {"crop": note.preprocess.crop},
        side=note.preprocess.network_side,
        classes=note.classes,
        trained=f"Trained by `smoothcert finetune` on {listed(kinds)}, as the file says.",
        ablation=_most_drawn(note),
        comments={"preprocess": "What the network saw in its training."},
    )


def _trained_under(ablation: TrainedWindow | TrainedMask | Cutout) -> str:
    match ablation:
        case TrainedWindow():
            return f"{ablation.kind}s of {ablation.size} pixels"
        case TrainedMask():
            return f"masks against {ablation.threat_text}"
        case Cutout():
            return f"cutout of {ablation.side} pixels"


def _most_drawn(note: TrainedWith) -> dict[str, Any] | None:
    if note.ablation is None:
        return None
    most = max(note.ablation, key=lambda ablation: ablation.weight)
    if isinstance(most, Cutout):  # masks hide squares; the threat is that of the paper, 2 % of the pixels
        threat = max(1, round(note.preprocess.crop * _SIDE_OF_2_PERCENT))
        return {"kind": "mask", "threat": threat, "per_axis": 3, "fill": most.fill}
    return most.model_dump(exclude={"weight"}, exclude_defaults=True)


def _with_tokens_kept(found: Described) -> Described:
    """The same, with masked_tokens: keep where tokens cannot be dropped."""
    model = Network.model_validate(
        {key: value for key, value in found.model.items() if key not in ("checkpoint", "class_names")}
        | {"masked_tokens": "keep"}
    )
    with torch.device("meta"):
        network = build_classifier(model, found.side)
    if not has_tokens(network):
        found.model["masked_tokens"] = "keep"
        found.comments["model.masked_tokens"] = "This network has no tokens that can be left out."
    return found
