"""Which engine a job's network votes in: tokens that can be dropped have one of their own."""

import torch
from torch import nn

from manifests.job import Model, Preprocess
from workers.classifiers import has_tokens
from workers.geometry import Geometry
from workers.smoothed import Smoothed
from workers.smoothed_dense import SmoothedDense
from workers.smoothed_vit import SmoothedViT


def smooth(
    network: nn.Module, geometry: Geometry, *, preprocess: Preprocess, model: Model, device: torch.device
) -> Smoothed:
    """The network, ready to vote; arguments and errors as of SmoothedViT and SmoothedDense."""
    engine = SmoothedViT if has_tokens(network) else SmoothedDense
    return engine(network, geometry, preprocess=preprocess, model=model, device=device)
