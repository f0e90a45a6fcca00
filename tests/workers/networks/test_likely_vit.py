"""The shapes of tensors show which VisionTransformer they belong to."""

from typing import Any

import pytest
import torch

from smoothcert.manifests.job import Model
from smoothcert.workers.networks.classifiers import build_classifier
from smoothcert.workers.networks.likely_vit import likely_vit

_CASES: list[tuple[str, dict[str, Any], int]] = [
    ("vit_tiny_patch16_224", {}, 224),
    ("vit_tiny_patch16_224", {"patch_size": 4, "depth": 6}, 32),
    ("vit_small_patch32_224", {}, 224),
    ("deit_base_distilled_patch16_224", {"depth": 2}, 384),
    ("vit_large_patch16_224", {"depth": 3, "mlp_ratio": 2.0, "qkv_bias": False}, 64),
    ("vit_huge_patch14_224", {"depth": 1}, 56),
    ("deit3_small_patch16_224", {"depth": 2}, 64),
    ("vit_medium_patch16_reg4_gap_256", {"depth": 2}, 64),
    ("vit_tiny_patch16_224", {"embed_dim": 128, "num_heads": 2, "qk_norm": True, "global_pool": "avg"}, 64),
]


@pytest.mark.parametrize("prefix", ["", "module.model.model."])
@pytest.mark.parametrize(("architecture", "options", "side"), _CASES)
def test_the_likely_network_has_the_same_names_and_shapes(
    architecture: str, options: dict[str, Any], side: int, prefix: str
) -> None:
    """timm builds the network from the answer."""
    shapes = _shapes(architecture, options, 10, side)
    likely = likely_vit({prefix + name: shape for name, shape in shapes.items()})
    assert likely is not None and likely.classes is not None and likely.side is not None
    assert _shapes(likely.architecture, likely.options, likely.classes, likely.side) == shapes


def test_other_families_have_no_likely_network() -> None:
    """Their tensors have other names."""
    assert likely_vit({"conv1.weight": (64, 3, 7, 7), "fc.weight": (10, 64)}) is None


def _shapes(architecture: str, options: dict[str, Any], classes: int, side: int) -> dict[str, tuple[int, ...]]:
    model = Model(architecture=architecture, options=options, checkpoint="none", classes=classes)
    with torch.device("meta"):
        network = build_classifier(model, side)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
