"""The whole-image classifier that attacks attack is timm's own."""

import copy

import pytest
import timm
import torch

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.attacks.whole_image import WholeImages
from tests.helpers.studied import CLASSES, CPU, CROP, images, vit

NETWORKS = {
    "tokens": vit,
    "no tokens": lambda: timm.create_model("resnet10t", num_classes=CLASSES).eval(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_normalised_upsampled_images(name):
    torch.manual_seed(0)
    preprocess = Preprocess(resize=None, crop=CROP // 2, upsample=2, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    network = NETWORKS[name]()
    pixels = images(3, crop=CROP // 2).pixels.permute(0, 3, 1, 2).float() / 255
    module = WholeImages(copy.deepcopy(network), preprocess, CPU)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    large = ((pixels - mean) / std).repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.inference_mode():
        torch.testing.assert_close(module(pixels), network(large), rtol=1e-4, atol=1e-5)
    assert module.forwards == 3
