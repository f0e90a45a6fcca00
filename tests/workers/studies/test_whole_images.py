"""What a network sees of whole images in a study."""

import copy

import pytest
import torch

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.studies.whole_images import normalised
from smoothcert.workers.votes.voters import smooth
from tests.helpers.studied import CPU, CROP, FORMAT, PREPROCESS, images, vit


@pytest.mark.parametrize(("crop", "upsample"), [(CROP, 1), (CROP // 2, 2)])
def test_whole_images_are_those_of_the_engine(crop, upsample):
    """A network gives the logits of its engine, which folds the same arithmetic into the embedding."""
    preprocess = Preprocess(resize=None, crop=crop, upsample=upsample)
    network, pixels = vit(), images(3, crop).pixels
    shown = ablations_of(WindowAblation(kind="column", size=4), crop, crop)
    engine = smooth(copy.deepcopy(network), shown, preprocess=preprocess, format=FORMAT, device=CPU)
    logits = network(normalised(pixels, preprocess))
    torch.testing.assert_close(logits, engine.clean_logits(pixels)[:, 0], atol=1e-4, rtol=1e-4)


def test_images_are_normalised_by_channel():
    pixels = images(1).pixels
    expected = (pixels[0, 3, 5, 1] / 255 - PREPROCESS.mean[1]) / PREPROCESS.std[1]
    assert normalised(pixels, PREPROCESS)[0, 1, 3, 5] == pytest.approx(float(expected), abs=1e-6)
