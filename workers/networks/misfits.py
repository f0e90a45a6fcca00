"""The error for a checkpoint that does not fit the job's network: what is wrong, and what to write into the job.

Unknown tensors may be harmless, so the error shows the line that ignores them. It names another network only if the
file loads into that network.

Not covered: what fits (fitting.py), which network has such shapes (likely_vit.py).
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Model
from smoothcert.manifests.names import printable
from smoothcert.workers.networks.checkpoint_files import is_part
from smoothcert.workers.networks.fitting import Fit, fit_of, prefix_of
from smoothcert.workers.networks.likely_vit import LikelyVit, likely_vit
from smoothcert.workers.networks.weights import is_like

_MAX_COMPLAINTS, _MAX_PATTERNS, _MAX_PATTERN_CHARACTERS = 3, 40, 60
_GENERAL_REMEDY = "correct architecture, options, classes, crop or upsample"

Build = Callable[[Model, int], nn.Module]


class Misfit(NamedTuple):
    """A file and a network that do not fit.

    Attributes:
        weights: the tensors of the file, by name.
        network, model: the network of the job, and its description.
        side: side of the network's images, in pixels.
        channels: channels of its images.
        fit: how the file matches the network.
    """

    weights: Mapping[str, Tensor]
    network: nn.Module
    model: Model
    side: int
    channels: int
    fit: Fit


class _Likely(NamedTuple):
    vit: LikelyVit
    fit: Fit


def describe(misfit: Misfit, build: Build) -> str:
    """What is wrong and what to do, in one line.

    Args:
        misfit: the file and the network.
        build: builds a network from a model and the side of its images.
    """
    model, fit, side = misfit.model, misfit.fit, misfit.side
    complaints = list(_complaints(misfit))
    more = f" (and {len(complaints) - _MAX_COMPLAINTS} more)" if len(complaints) > _MAX_COMPLAINTS else ""
    network = f"{model.architecture} with {model.classes} classes on {side} x {side} pixels"
    found = f"does not fit {network}" if fit.lacks or fit.unlike else f"has all weights of {network} and more"
    return (
        f"model.checkpoint: {model.checkpoint} {found}: {'; '.join(complaints[:_MAX_COMPLAINTS])}{more}; "
        f"{_remedy(misfit, build)}"
    )


def _complaints(misfit: Misfit) -> Iterator[str]:
    fit, own = misfit.fit, misfit.network.state_dict()
    yield from _some("lacks", fit.lacks)
    yield from _some("has besides", fit.besides)
    for name in fit.unlike:
        there, here = fit.tensors[name], own[name]
        label = printable(fit.prefix + name)
        if there.shape != here.shape:
            yield f"{label} is {list(there.shape)}, expected {list(here.shape)}"
        else:
            yield f"{label} holds {there.dtype} numbers, expected floating ones"


def _some(verb: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        others = f" and {len(names) - 1:,} other{'s' * (len(names) > 2)}" if len(names) > 1 else ""
        yield f"the file {verb} {printable(names[0])}{others}"


def _remedy(misfit: Misfit, build: Build) -> str:
    fit = misfit.fit
    if fit.lacks and is_part(misfit.model.checkpoint):
        return "it is one of several files of a network; `smoothcert import-checkpoint` of their index makes one file"
    if taken := [each for each in misfit.model.ignore if any(is_like(name, each) for name in fit.lacks)]:
        return f"the network needs what model.ignore leaves out; correct the pattern {printable(taken[0])!r}"
    settings = _settings(misfit)
    architecture_fits = not fit.lacks and (bool(settings) or not fit.unlike)
    if architecture_fits and not fit.besides:
        return "; ".join(settings)
    likely = _likely(misfit, build)
    if likely is not None and not (architecture_fits and len(likely.fit.besides) >= len(fit.besides)):
        ignored = f", and {_ignore(likely.fit)}" if likely.fit.besides else ""
        return f"{_GENERAL_REMEDY}; by its shapes the file is {likely.vit}{ignored}"
    if not architecture_fits:
        return _without_architecture(misfit)
    if _are_layers(misfit):
        return "the file is of a network with more layers; correct architecture or options"
    return "; ".join([*settings, _ignore_if_harmless(misfit)])


def _without_architecture(misfit: Misfit) -> str:
    fit, own = misfit.fit, misfit.network.state_dict()
    if not fit.sources:
        return "it has none of the network's names; correct architecture, or give its tensors timm's names"
    lacking = [own[name.removeprefix(fit.prefix)] for name in fit.lacks]
    if not fit.unlike and all(tensor.dim() and len(tensor) == misfit.model.classes for tensor in lacking):
        return "it has no head, so it cannot classify; finetune it, or name a checkpoint with a head"
    return _GENERAL_REMEDY


def _settings(misfit: Misfit) -> list[str]:
    """The settings to change if only head and positions have other shapes; none if other tensors have, too."""
    fit, own, classes = misfit.fit, misfit.network.state_dict(), misfit.model.classes
    heads = {
        name: fit.tensors[name].shape[0]
        for name in fit.unlike
        if own[name].dim()
        and own[name].shape[0] == classes
        and fit.tensors[name].dim()
        and fit.tensors[name].shape[0] != classes
        and fit.tensors[name].shape[1:] == own[name].shape[1:]
    }
    positions = [name for name in fit.unlike if "pos" in name.rpartition(".")[2] and name not in heads]
    if len(heads) + len(positions) < len(fit.unlike) or len(set(heads.values())) > 1:
        return []
    vit = likely_vit({name: tuple(value.shape) for name, value in fit.tensors.items()})
    if positions and vit is not None and vit.side == misfit.side:  # other tokens have positions
        return []
    side = f" (the file is of {vit.side} x {vit.side} pixels)" if vit is not None and vit.side else ""
    return [f"set model.classes: {count}" for count in set(heads.values())] + (
        [f"correct crop or upsample{side}"] if positions else []
    )


def _likely(misfit: Misfit, build: Build) -> _Likely | None:
    """The ViT that has the file's shapes, if the file loads into it."""
    vit = likely_vit({name: tuple(value.shape) for name, value in misfit.weights.items()})
    if vit is None or vit.classes is None:
        return None
    classes, vit = vit.classes, _with_heads_of(misfit.model, vit)
    try:
        model = Model(architecture=vit.architecture, options=vit.options, checkpoint="", classes=classes)
        with torch.device("meta"):
            network = build(model, vit.side or misfit.side)
    except (ValidationError, RequestError):
        return None
    fit = fit_of(misfit.weights, network, model, misfit.channels)
    return None if fit.lacks or fit.unlike else _Likely(vit, fit)


def _with_heads_of(model: Model, vit: LikelyVit) -> LikelyVit:
    """Take the number of heads from the job if it names one for this width; shapes do not show it."""
    heads, width = (model.options.get(name) for name in ("num_heads", "embed_dim"))
    if heads is None or width != vit.options.get("embed_dim"):
        return vit
    return vit._replace(options=vit.options | {"num_heads": heads})


def _are_layers(misfit: Misfit) -> bool:
    """Whether an unknown tensor has the name of a layer of the network, except for its number."""
    own = {re.sub(r"\d+", "0", name) for name in misfit.network.state_dict()}
    prefix = misfit.fit.prefix
    return any(
        name.startswith(prefix) and re.sub(r"\d+", "0", name.removeprefix(prefix)) in own for name in misfit.fit.besides
    )


def _ignore_if_harmless(misfit: Misfit) -> str:
    fit, own = misfit.fit, misfit.network.state_dict()
    other = prefix_of(fit.besides, own)
    copies = other and not fit.prefix.startswith(other) and all(name.removeprefix(other) in own for name in fit.besides)
    if copies and 2 * len(fit.besides) > len(own):
        choices = [f"write {_line([escape(other) + '*'])} to use the one under {fit.prefix!r}"]
        if fit.prefix and not other.startswith(fit.prefix):
            choices.append(f"{_line([escape(fit.prefix) + '*'])} to use the one under {other!r}")
        return f"the file holds the network twice, with other numbers; {', or '.join(choices)}"
    these = printable(fit.besides[0]) if len(fit.besides) == 1 else f"these {len(fit.besides):,} tensors"
    return f"if the network does not need {these} to classify, {_ignore(fit)}"


def _ignore(fit: Fit) -> str:
    patterns = _patterns(fit.besides, fit.sources | fit.normalisers.keys())
    others = f" and {len(patterns) - _MAX_PATTERNS} more patterns" if len(patterns) > _MAX_PATTERNS else ""
    return f"write {_line(patterns[:_MAX_PATTERNS])}{others}"


def _line(patterns: Sequence[str]) -> str:
    return f"model.ignore: {json.dumps(patterns)}"


def _patterns(names: Sequence[str], needed: Collection[str]) -> list[str]:
    """The widest patterns that match all of the names and none of the needed ones."""
    patterns: list[str] = []
    for name in names:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        ends = [place + 1 for place, letter in enumerate(name) if letter == "."]
        wider = [f"{escape(name[:end])}*" for end in [*ends, _MAX_PATTERN_CHARACTERS] if end < len(name)]
        patterns.append(
            next((each for each in wider if not any(fnmatchcase(one, each) for one in needed)), escape(name))
        )
    return patterns
