"""Which tensors of a checkpoint belong to a network.

A training script may save its network under other names: wrapped, averaged, beside a copy of itself or a normaliser.
The search tries the network's own names under every prefix, then the names of earlier versions (older_names.py). All
other tensors must be known to be harmless.

Not covered: the error for a file that does not fit (misfits.py).
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from smoothcert.manifests.job import Model
from smoothcert.workers.networks.checkpoints import AVERAGED
from smoothcert.workers.networks.normaliser import normalisers
from smoothcert.workers.networks.older_names import filter_of, rename

_COUNTER = "num_batches_tracked"  # of batch norm, which no vote depends on; older versions of torch have none
_BOOKKEEPING = {AVERAGED, _COUNTER, "total_ops", "total_params"}  # the last two are thop's
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_COMMON_SHARE = 1 / 3  # of the names; a wrapper may hold its network twice, and a normaliser


class Fit(NamedTuple):
    """How the tensors of a file match those of a network.

    Attributes:
        tensors: the network's tensors that the file has, by the network's names.
        sources: the names of those tensors in the file.
        prefix: what precedes the network's names in the file.
        lacks: names of the network that the file does not have, with the prefix.
        unlike: names of the network whose tensors in the file have another shape, or hold no floating-point numbers.
        besides: other names in the file that are not known to be harmless.
        normalisers: means and stds of a wrapper, by their names in the file.
    """

    tensors: dict[str, Tensor]
    sources: set[str]
    prefix: str
    lacks: list[str]
    unlike: list[str]
    besides: list[str]
    normalisers: dict[str, Tensor]

    @property
    def loads(self) -> bool:
        return not (self.lacks or self.unlike or self.besides)


def fit_of(weights: Mapping[str, Tensor], network: nn.Module, model: Model, channels: int) -> Fit:
    """Find a network's tensors in a file, under older names if the file does not have today's.

    Args:
        weights: the tensors of the file, by name.
        network: the network of the job; its numbers do not matter, so it may be on the meta device.
        model: the description from which it was built.
        channels: channels of its images.
    """
    own = network.state_dict()
    prefix = prefix_of(weights, own)
    found = {name: weights[prefix + name] for name in own if prefix + name in weights}
    fit = _fit(weights, network, channels, prefix, found, {prefix + name for name in found})
    plain = {_WRAPPERS.sub("", name): value for name, value in weights.items()}  # torch may wrap single layers
    if fit.lacks and plain.keys() != weights.keys() and len(plain) == len(weights):
        return fit_of(plain, network, model, channels)
    filter_fn = filter_of(model) if fit.lacks or fit.unlike else None
    if filter_fn is None:
        return fit
    # A prefix under which the file has all names is right; otherwise older names may have another prefix.
    for older in dict.fromkeys((prefix, *(_common_prefixes(weights) if fit.lacks else ()))):
        inside = {name.removeprefix(older): value for name, value in weights.items() if name.startswith(older)}
        renamed = rename(inside, network, filter_fn)
        # A tensor that timm would resample stays as it is, so that the error shows its wrong size.
        kept = own.keys() & inside.keys() - renamed.tensors.keys()
        kept = {name for name in kept if _is_unlike(inside[name], own[name])}
        found = renamed.tensors | {name: inside[name] for name in kept}
        sources = {older + name for name in renamed.sources | kept}
        other = _fit(weights, network, channels, older, found, sources)
        fit = min(fit, other, key=lambda each: len(each.lacks) + len(each.unlike))
        if not (fit.lacks or fit.unlike):
            break
    return fit


def prefix_of(names: Collection[str], own: Collection[str]) -> str:
    """The most frequent prefix of the network's own names in a file, the shortest if several are equally frequent."""
    counts = Counter(name.removesuffix(tail) for name in names for tail in _tails(name) if tail in own)
    return min(counts, key=lambda prefix: (-counts[prefix], len(prefix)), default="")


def _common_prefixes(names: Collection[str]) -> list[str]:
    """Prefixes, up to a dot, that many names share; the shortest first, which is empty."""
    counts = Counter(name.removesuffix(tail) for name in names for tail in _tails(name))
    return sorted((prefix for prefix, count in counts.items() if count >= _COMMON_SHARE * len(names)), key=len)


def _fit(
    weights: Mapping[str, Tensor],
    network: nn.Module,
    channels: int,
    prefix: str,
    found: dict[str, Tensor],
    sources: set[str],
) -> Fit:
    """Compare the tensors found for a network with the network.

    Args:
        found: the tensors, by the network's names.
        sources: their names in the file.
    """
    own, made = network.state_dict(), dict(network.named_buffers())
    counters = {name: own[name] for name in own.keys() - found.keys() if name.endswith(_COUNTER)}
    unlike = sorted(name for name in own if name in found and _is_unlike(found[name], own[name]))
    others = {name: weights[name] for name in sorted(weights.keys() - sources)}
    pairs = normalisers(others, channels)
    besides = [
        name
        for name, value in others.items()
        if name not in pairs
        and not _is_bookkeeping(name, value)
        and not _repeats(name, weights, sources, prefix)
        and not _is_equal(value, made.get(name.removeprefix(prefix)))
    ]
    return Fit(
        found | counters,
        sources,
        prefix,
        sorted(prefix + name for name in own.keys() - found.keys() - counters.keys()),
        unlike,
        sorted(besides, key=lambda name: (not name.startswith(prefix), name)),
        pairs,
    )


def _tails(name: str) -> Iterator[str]:
    """The name, and what remains of it after each dot."""
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _repeats(name: str, weights: Mapping[str, Tensor], sources: Collection[str], prefix: str) -> bool:
    """Whether a tensor is a copy of one of the network's, under another prefix."""
    return any(prefix + tail in sources and _is_equal(weights[name], weights[prefix + tail]) for tail in _tails(name))


def _is_bookkeeping(name: str, value: Tensor) -> bool:
    return name.rpartition(".")[2] in _BOOKKEEPING and value.numel() == 1


def _is_unlike(found: Tensor, own: Tensor) -> bool:
    return found.shape != own.shape or (own.is_floating_point() and not found.is_floating_point())


def _is_equal(value: Tensor, other: Tensor | None) -> bool:
    if other is None or other.is_meta or value.shape != other.shape:
        return False
    return bool((value == other).all())
