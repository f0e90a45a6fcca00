"""Networks that learn under ablations, compared with the engine that votes."""

import copy

import torch

from smoothcert.manifests.ablation import WindowAblation, ablation_of
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.networks.classifiers import has_tokens
from smoothcert.workers.votes.ablated_dense import AblatedDense
from smoothcert.workers.votes.ablated_forward import AblatedForward
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.voters import smooth

CROP, CLASSES = 16, 3
PREPROCESS = Preprocess(resize=None, crop=CROP)
ABLATIONS = [
    WindowAblation(kind="column", size=3),
    WindowAblation(kind="row", size=6),
    WindowAblation(kind="block", size=5, stride=3),
]
KINDS = [ablations_of(ablation, CROP, CROP) for ablation in ABLATIONS]
MEAN_MASKS = [ablations_of(ablation_of({"kind": "mask", "threat": 3, "per_axis": 3}), CROP, CROP)]
"""Their hidden pixels are the mean."""


def logits_of(forward, images, ablations, *, at_most=100):
    """[images, classes], each image under its ablation."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    logits = torch.zeros(len(images), CLASSES)
    for group in forward.groups(ablations, at_most=at_most):
        logits = logits.index_put((group.images,), forward(pixels, group))
    return logits


def check_same_logits(network, preprocess, masked_tokens, kinds=KINDS):
    """In evaluation mode the logits are those of the engine, for every ablation of every kind."""
    images = torch.randint(0, 256, (2, CROP, CROP, 3), dtype=torch.uint8)
    form = Format("a network", CLASSES, keep_hidden=masked_tokens == "keep")
    expected = torch.cat(
        [
            smooth(
                copy.deepcopy(network), geometry, preprocess=preprocess, format=form, device=torch.device("cpu")
            ).logits(images)
            for geometry in kinds
        ],
        dim=1,
    )
    if has_tokens(network):
        forward = AblatedForward(network, kinds, preprocess, keep_hidden=masked_tokens == "keep").eval()
    else:
        forward = AblatedDense(network, kinds, preprocess).eval()
    total = expected.shape[1]
    each = images.repeat_interleave(total, dim=0)
    logits = logits_of(forward, each, torch.arange(total).repeat(2), at_most=7)
    torch.testing.assert_close(logits.unflatten(0, (2, total)), expected, atol=1e-4, rtol=1e-4)
