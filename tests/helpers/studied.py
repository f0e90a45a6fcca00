"""Images to study, and small networks that are studied."""

import timm
import torch

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.studies.measures import Studied
from smoothcert.workers.votes.format import Format

CROP, CLASSES = 16, 3
PREPROCESS = Preprocess(resize=None, crop=CROP)
FORMAT = Format("a network", CLASSES, keep_hidden=False)
CPU = torch.device("cpu")


def images(count=2, crop=CROP, channels=3):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, crop, crop, channels), dtype=torch.uint8, generator=generator)
    return Studied(pixels, [0] * count, [100 + n for n in range(count)], None)


def one_of(studied, position):
    part = slice(position, position + 1)
    return Studied(studied.pixels[part], studied.labels[part], studied.seeds[part], None)


def vit(architecture="vit_tiny_patch16_224", *, img_size=CROP, spread=0.2, **options):
    """A Vision Transformer of 16 tokens with random weights."""
    torch.manual_seed(0)
    small = {"patch_size": 4, "depth": 2, "embed_dim": 32, "num_heads": 2}
    network = timm.create_model(architecture, img_size=img_size, num_classes=CLASSES, **small | options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * spread)
    return network.eval()
