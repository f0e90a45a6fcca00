"""Which twin a network has. What each computes is tested in files of their own."""

import timm

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.votes.ablated_dense import AblatedDense
from smoothcert.workers.votes.ablated_forward import AblatedForward
from smoothcert.workers.votes.differentiable import differentiable
from tests.helpers.studied import CLASSES, CROP, PREPROCESS, vit


def test_tokens_are_left_out_where_a_network_has_them():
    kinds = [ablations_of(WindowAblation(kind="column", size=4), CROP, CROP)]
    assert isinstance(differentiable(vit(), kinds, PREPROCESS), AblatedForward)
    resnet = timm.create_model("resnet10t", num_classes=CLASSES)
    assert isinstance(differentiable(resnet, kinds, PREPROCESS), AblatedDense)
