"""Random images that go through a network together, each under an ablation of its own."""

import torch

from smoothcert.manifests.training import Training
from smoothcert.workers.training.augmentation import Draws
from smoothcert.workers.training.losses import Together
from smoothcert.workers.training.recipe import draw_ablations, kinds_of
from smoothcert.workers.votes.differentiable import Differentiable


def together_of(training: Training, forward: Differentiable, *, images: int) -> Together:
    """The first group of so many images; all of them, unless tokens are dropped."""
    crop, numbers = training.preprocess.crop, torch.Generator().manual_seed(1)
    pixels = torch.rand(images, training.preprocess.channels, crop, crop, generator=numbers)
    classes = torch.randint(0, training.model.classes, (images,), generator=numbers)
    draws = Draws.of_epoch(training.seed, 0, images)
    group = next(iter(forward.groups(draw_ablations(training, kinds_of(training), draws), at_most=images)))
    here = group._replace(images=torch.arange(len(group.images)))
    return Together(pixels[group.images], here, classes[group.images], torch.from_numpy(draws.seed)[group.images])
