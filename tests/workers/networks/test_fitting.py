"""The tensors of a network are found in a file, and what is left over is harmless or named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smoothcert.manifests.job import Model
from smoothcert.workers.networks.fitting import fit_of, prefix_of
from tests.helpers.checkpoints import (
    DEIT3,
    RESNET,
    SWIN,
    VIT,
    StateDict,
    has_weights_of,
    load,
    network_of,
    older,
    prefixed,
)

_HARMLESS: dict[str, tuple[Model, Callable[[nn.Module], StateDict]]] = {
    "a normaliser": (
        VIT,
        lambda network: (
            prefixed("model.", network.state_dict())
            | {
                "normalize.mean": torch.tensor([0.485, 0.456, 0.406]),
                "normalize.std": torch.tensor([0.229, 0.224, 0.225]),
            }
        ),
    ),
    "older names": (DEIT3, lambda network: {"model": older(network.state_dict())}),
    "older names, twice, under a prefix": (
        DEIT3,
        lambda network: {
            f"module.{copy}model.{name}": value
            for copy in ("", "attacker.")
            for name, value in older(network.state_dict()).items()
        },
    ),
    "layers that torch compiled or wrapped": (
        DEIT3,
        lambda network: {
            "module." + name.replace("blocks.1.", "blocks.1._orig_mod._checkpoint_wrapped_module."): value
            for name, value in older(network.state_dict()).items()
        },
    ),
    "what the network makes itself": (
        SWIN,
        lambda network: network.state_dict() | {n: b for n, b in network.named_buffers() if b is not None},
    ),
    "counts of operations": (
        RESNET,
        lambda network: network.state_dict() | {"total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)},
    ),
    "no counts of batches": (
        RESNET,
        lambda network: {n: v for n, v in network.state_dict().items() if not n.endswith("num_batches_tracked")},
    ),
}


@pytest.mark.parametrize("case", _HARMLESS)
def test_harmless_extras_change_nothing(case: str, tmp_path: Path) -> None:
    """The network that was saved is the network that is loaded."""
    model, save = _HARMLESS[case]
    network = network_of(model)
    assert has_weights_of(load(save(network), model, tmp_path), network)


def test_a_fit_says_what_is_lacking_unlike_and_besides() -> None:
    """Each tensor of file and network is in exactly one of the lists, under the name that a user sees."""
    network = network_of(VIT)
    weights = prefixed("net.", network.state_dict())
    del weights["net.norm.bias"]
    weights |= {"net.head.weight": torch.ones(9, 64), "net.extra": torch.ones(2), "other": torch.ones(2)}
    fit = fit_of(weights, network, VIT, channels=3)
    assert (fit.prefix, fit.lacks, fit.unlike) == ("net.", ["net.norm.bias"], ["head.weight"])
    assert fit.besides == ["net.extra", "other"]  # what lies under the prefix comes first
    assert fit.sources == weights.keys() - {"net.extra", "other"}
    assert not fit.loads


_NAMES = st.sets(st.sampled_from([f"blocks.{n}.{part}" for n in range(3) for part in ("a", "b.c")]), min_size=3)


@given(prefix=st.sampled_from(["", "module.", "model.net."]), own=_NAMES, copies=st.integers(0, 2))
def test_the_prefix_is_what_stands_most_often_before_the_networks_names(
    prefix: str, own: set[str], copies: int
) -> None:
    """A few of the names under another prefix, as of a second head, do not count."""
    others = [f"a.{name}" for name in sorted(own)[:copies]]
    assert prefix_of([*(prefix + name for name in own), *others], own) == prefix
