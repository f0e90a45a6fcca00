"""Which engine a job's network votes in: tokens that can be dropped have one of their own."""

import copy

import torch
from torch import nn

from smoothcert.manifests.job import Model, Preprocess
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.networks.classifiers import has_tokens
from smoothcert.workers.votes.self_check import refuse_another_function
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.smoothed_dense import SmoothedDense
from smoothcert.workers.votes.smoothed_vit import SmoothedViT


def smooth(
    network: nn.Module, geometry: Geometry, *, preprocess: Preprocess, model: Model, device: torch.device
) -> Smoothed:
    """The network, ready to vote, after its engine has shown that it computes what timm computes.

    Arguments and errors as of SmoothedViT, SmoothedDense and refuse_another_function.
    """
    untouched = copy.deepcopy(network.to(device))
    engine = _engine(network, geometry, preprocess=preprocess, model=model, device=device)
    exact = engine
    if model.dtype != "float32":
        float32 = model.model_copy(update={"dtype": "float32"})
        exact = _engine(copy.deepcopy(untouched), geometry, preprocess=preprocess, model=float32, device=device)
    refuse_another_function(exact, untouched, geometry, preprocess=preprocess, model=model)
    return engine


def _engine(
    network: nn.Module, geometry: Geometry, *, preprocess: Preprocess, model: Model, device: torch.device
) -> Smoothed:
    engine = SmoothedViT if has_tokens(network) else SmoothedDense
    return engine(network, geometry, preprocess=preprocess, model=model, device=device)
