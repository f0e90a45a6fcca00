"""Tensors under older names, renamed by the function that timm has for each architecture.

timm's filter of published weights (`checkpoint_filter_fn`) turns the names of other libraries and of earlier versions
into today's. It may also resample positions, add zeros or drop layers. No vote may depend on that, so the filter gets
numbered places instead of the weights. The places in its result show which tensors were only moved.

Not covered: whether the renamed tensors fit (fitting.py).
"""

import inspect
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple
from unittest.mock import patch

import timm
import torch
from timm.models import _builder
from torch import Tensor, nn

from smoothcert.manifests.job import Model

Filter = Callable[..., dict[str, Any]]

_MAX_TIMES_LARGER = 8  # than the network: tensors of a file may share numbers, and together exceed the memory


class Renamed(NamedTuple):
    """Tensors under today's names.

    Attributes:
        tensors: the network's, by today's name, each number as the file has it.
        sources: the older names of the tensors in them, each used completely.
    """

    tensors: dict[str, Tensor]
    sources: set[str]


def filter_of(model: Model) -> Filter | None:
    """timm's filter of the weights that it publishes for an architecture; None if they need none."""
    taken: list[Filter | None] = [None]

    def take(*_: object, filter_fn: Filter | None = None, **__: object) -> None:
        taken.append(filter_fn)

    # Builders pass the filter, sometimes made for the variant, only to load_pretrained, so it is taken there.
    # If a variant cannot be built like this, at its usual size, its tensors keep their names.
    with suppress(Exception), patch.object(_builder, "load_pretrained", take), torch.device("meta"):
        timm.create_model(model.architecture, pretrained=True, num_classes=model.classes, **model.options)
    found = taken[-1]
    if found is not None and "adapt_layer_scale" in inspect.signature(found).parameters:
        found = partial(found, adapt_layer_scale=True)  # gamma_1 for ls1.gamma, whichever ViT the job names
    return found


def rename(weights: Mapping[str, Tensor], network: nn.Module, filter_fn: Filter) -> Renamed:
    """Apply a filter, but keep only tensors that it renames or reshapes, none that it computes or uses in part.

    Args:
        weights: by older names, without a prefix.
        network: the network that they may belong to.
        filter_fn: timm's, of the network's architecture.
    """
    names, own = list(weights), network.state_dict()
    ends = list(accumulate((weights[name].numel() for name in names), initial=0))
    if ends[-1] > _MAX_TIMES_LARGER * sum(tensor.numel() for tensor in own.values()):
        return Renamed({}, set())
    moves, backwards = (
        _moves(order, dict(zip(names, ends, strict=False)), weights, network, filter_fn)
        for order in (names, names[::-1])
    )
    moves = {  # some filters depend on the order of the names, which a file need not keep
        name: move
        for name, move in moves.items()
        if name in own and name in backwards and move.same_as(backwards[name])
    }
    once, starts = _used_once(moves.values(), names, ends), torch.tensor(ends)
    tensors, sources = {}, set()
    for name, move in moves.items():
        if move.source is not None:
            owners = [names.index(move.source)]
        else:
            owner = torch.bucketize(move.places, starts, right=True) - 1
            owners = owner.unique().tolist()
        if not all(once[number] for number in owners):
            continue
        sources |= {names[number] for number in owners}
        if move.source is not None:
            tensors[name] = weights[move.source].reshape(move.shape)
        else:
            held = {ends[number]: weights[names[number]] for number in owners}
            tensors[name] = _gather(held, move.places, starts[owner])
    return Renamed(tensors, sources)


class _Move(NamedTuple):
    """Where a tensor that a filter returns comes from.

    Attributes:
        source: the tensor of the file that it equals, except for its shape; None if it combines several or parts.
        shape: of the returned tensor.
        places: where each of its numbers stands in the file, from 0; empty if it has a source.
    """

    source: str | None
    shape: torch.Size
    places: Tensor

    def same_as(self, other: "_Move") -> bool:
        return self[:2] == other[:2] and torch.equal(self.places, other.places)


def _moves(
    order: Sequence[str],
    starts: Mapping[str, int],
    weights: Mapping[str, Tensor],
    network: nn.Module,
    filter_fn: Filter,
) -> dict[str, _Move]:
    """Apply a filter to numbered places. Tensors with any number that is not a place in the file are left out."""
    total = sum(weights[name].numel() for name in order)
    takes_network = len(inspect.signature(filter_fn).parameters) > 1
    numbered = {name: _numbers(starts[name], weights[name]).reshape(weights[name].shape) for name in order}
    try:
        filtered = filter_fn(numbered, network) if takes_network else filter_fn(numbered)
    except Exception:  # a filter may raise anything for names that it does not know
        return {}
    in_order = sorted(starts, key=starts.__getitem__)
    ends = [starts[name] for name in in_order]
    moves = {}
    for name, numbers in filtered.items():
        if not isinstance(numbers, Tensor) or numbers.dtype != torch.float64 or not numbers.numel():
            continue  # others were rounded
        first = numbers.flatten()[0].item()
        source = in_order[bisect_right(ends, first - 1) - 1] if 1 <= first <= total else None
        if source is not None and torch.equal(numbers.flatten(), _numbers(starts[source], weights[source])):
            moves[name] = _Move(source, numbers.shape, torch.empty(0))
        elif bool(((numbers >= 1) & (numbers <= total) & (numbers == numbers.round())).all()):
            moves[name] = _Move(None, numbers.shape, numbers.long() - 1)
    return moves


def _numbers(start: int, tensor: Tensor) -> Tensor:
    """The places of a tensor's numbers, from 1, so that 0 is not a place."""
    return torch.arange(start + 1, start + tensor.numel() + 1, dtype=torch.float64)


def _used_once(moves: Collection[_Move], names: Sequence[str], ends: Sequence[int]) -> list[bool]:
    """For each tensor of the file, whether the filter uses each of its numbers exactly once."""
    whole = Counter(move.source for move in moves if move.source is not None)
    parts = [move.places.flatten() for move in moves if move.source is None]
    if not parts:
        return [whole[name] == 1 for name in names]
    uses = torch.bincount(torch.cat(parts), minlength=ends[-1])
    return [
        bool((uses[start:end] + whole[name] == 1).all())
        for name, (start, end) in zip(names, pairwise(ends), strict=True)
    ]


def _gather(tensors: Mapping[int, Tensor], places: Tensor, starts: Tensor) -> Tensor:
    """Read numbers of the file.

    Args:
        tensors: the tensors that hold the numbers, in order, by the place of their first number.
        places: of the numbers to read.
        starts: for each number, where its tensor begins.
    """
    offset, within = 0, places - starts
    for start, tensor in tensors.items():
        within += offset * (starts == start)
        offset += tensor.numel()
    return torch.cat([tensor.flatten() for tensor in tensors.values()])[within]
