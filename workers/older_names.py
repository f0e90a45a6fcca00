"""Tensors under older names, renamed by the function that timm keeps for each architecture.

timm's filter of published weights (`checkpoint_filter_fn`) turns names of other libraries and of earlier versions into
today's. It may also resample positions, add zeros or leave layers out. Nobody asked for that here, so the filter gets
numbered places instead of the weights: where each number arrives shows what was only moved.

Not covered: whether what was renamed fits (weights.py).
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple
from unittest.mock import patch

import timm
import torch
from timm.models import _builder
from torch import Tensor, nn

from manifests.job import Model

Filter = Callable[..., dict[str, Any]]

_LARGER = 8  # than the network: a file's tensors may share numbers, and be larger than memory


class Renamed(NamedTuple):
    """Tensors under today's names.

    Attributes:
        tensors: the network's, by today's name, each number as the file has it.
        sources: the older names whose tensors stand in them, whole.
    """

    tensors: dict[str, Tensor]
    sources: set[str]


def filter_of(model: Model) -> Filter | None:
    """What timm does to the weights it publishes for an architecture; None where they need nothing."""
    taken: list[Filter | None] = [None]

    def take(*_: object, filter_fn: Filter | None = None, **__: object) -> None:
        taken.append(filter_fn)

    # Builders hand the filter to load_pretrained alone, some made for the variant, so it is taken there.
    # A variant that cannot be built so, at its usual size, keeps its names.
    with suppress(Exception), patch.object(_builder, "load_pretrained", take), torch.device("meta"):
        timm.create_model(model.architecture, pretrained=True, num_classes=model.classes, **model.options)
    found = taken[-1]
    if found is not None and "adapt_layer_scale" in inspect.signature(found).parameters:
        found = partial(found, adapt_layer_scale=True)  # gamma_1 for ls1.gamma, whichever ViT the job names
    return found


def rename(weights: Mapping[str, Tensor], network: nn.Module, filter_fn: Filter) -> Renamed:
    """Apply a filter as far as it only renames and reshapes; what it computes or uses in part is left out.

    Args:
        weights: by older names, without a prefix.
        network: that they may be of.
        filter_fn: timm's, of the network's architecture.
    """
    names, own = list(weights), network.state_dict()
    ends = list(accumulate((weights[name].numel() for name in names), initial=0))
    if ends[-1] > _LARGER * sum(tensor.numel() for tensor in own.values()):
        return Renamed({}, set())
    numbered = {
        name: torch.arange(start, end, dtype=torch.float64).add(1).reshape(weights[name].shape)
        for name, (start, end) in zip(names, pairwise(ends), strict=True)
    }
    moved = _places(numbered, network, filter_fn)
    backwards = _places(dict(reversed(numbered.items())), network, filter_fn)
    moved = {  # some filters go by the order of the names, which a file need not keep
        name: places
        for name, places in moved.items()
        if name in own and name in backwards and torch.equal(places, backwards[name])
    }
    once, starts = _used_once(moved.values(), ends), torch.tensor(ends)
    tensors, sources = {}, set()
    for name, places in moved.items():
        owner = torch.bucketize(places, starts, right=True) - 1
        owners = owner.unique().tolist()
        if all(once[number] for number in owners):
            tensors[name] = _gather({ends[number]: weights[names[number]] for number in owners}, places, starts[owner])
            sources |= {names[number] for number in owners}
    return Renamed(tensors, sources)


def _used_once(moved: Iterable[Tensor], ends: Sequence[int]) -> list[bool]:
    """Of each tensor of the file, whether each of its numbers arrives at one place."""
    uses = torch.zeros(ends[-1], dtype=torch.int32)
    for places in moved:
        uses.index_add_(0, places.flatten(), torch.ones(places.numel(), dtype=torch.int32))
    return [bool((uses[start:end] == 1).all()) for start, end in pairwise(ends)]


def _places(numbered: Mapping[str, Tensor], network: nn.Module, filter_fn: Filter) -> dict[str, Tensor]:
    """Where the numbers of each filtered tensor stand in the file; without tensors of which one stands nowhere."""
    copy = {name: numbers.clone() for name, numbers in numbered.items()}  # filters may change what they get
    total = sum(numbers.numel() for numbers in copy.values())
    takes_network = len(inspect.signature(filter_fn).parameters) > 1
    try:
        filtered = filter_fn(copy, network) if takes_network else filter_fn(copy)
    except Exception:  # whatever a filter says to names that it does not know
        return {}
    return {
        name: numbers.long() - 1
        for name, numbers in filtered.items()
        if isinstance(numbers, Tensor)
        and numbers.dtype == torch.float64  # others were rounded
        and bool(((numbers >= 1) & (numbers <= total) & (numbers == numbers.round())).all())
    }


def _gather(tensors: Mapping[int, Tensor], places: Tensor, starts: Tensor) -> Tensor:
    """Numbers of the file.

    Args:
        tensors: those that hold them, in order, by the place of their first number.
        places: of the numbers wanted.
        starts: for each, where its tensor begins.
    """
    offset, within = 0, places - starts
    for start, tensor in tensors.items():
        within += offset * (starts == start)
        offset += tensor.numel()
    return torch.cat([tensor.flatten() for tensor in tensors.values()])[within]
