"""A network that learns and computes every pixel: equal to the one that votes."""

import pytest
import timm
import torch

from smoothcert.workers.votes.ablated_dense import AblatedDense
from tests.helpers.ablations import other_kinds
from tests.helpers.learners import CLASSES, CROP, KINDS, MEAN_MASKS, PREPROCESS, check_same_logits


def _resnet():
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=CLASSES).eval()


@pytest.mark.parametrize("upsample", [1, 2])
def test_logits_are_those_of_the_engine(upsample):
    """In evaluation mode the logits are those of the engine, for every ablation of a mixture."""
    check_same_logits(_resnet(), PREPROCESS.model_copy(update={"upsample": upsample}), "keep")


def test_logits_are_those_of_the_engine_for_any_kind_of_ablation():
    """Also of kinds that are not rows times columns."""
    check_same_logits(_resnet(), PREPROCESS, "keep", [*other_kinds(CROP).values()])


def test_logits_are_those_of_the_engine_if_hidden_pixels_are_the_mean():
    check_same_logits(_resnet(), PREPROCESS, "keep", MEAN_MASKS)


def test_a_batch_comes_in_groups_of_a_bounded_size():
    """Every image once, with its own ablation."""
    forward = AblatedDense(_resnet(), KINDS, PREPROCESS)
    ablations = torch.tensor([5, 0, 3, 3, 40])
    groups = list(forward.groups(ablations, at_most=2))
    assert [len(group.images) for group in groups] == [2, 2, 1]
    assert torch.cat([group.images for group in groups]).tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(torch.cat([group.ablations for group in groups]), ablations)
