"""A job's network, ready to vote: loaded, in the engine that fits it, and checked.

A network with tokens that can be dropped votes in SmoothedViT, any other in SmoothedDense.
"""

import copy
from pathlib import Path

import torch
from torch import nn

from smoothcert.manifests.job import Job, Preprocess
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.shown import Shown
from smoothcert.workers.networks.classifiers import has_tokens, load_classifier
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.self_check import expected_logits, refuse_another_function, refuse_mixing
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.smoothed_dense import SmoothedDense
from smoothcert.workers.votes.smoothed_vit import SmoothedViT


def load_voter(
    job: Job, checkpoint: Path, checkpoint_key: str | None, device: torch.device, *, allow_code: bool = False
) -> Smoothed:
    """The network of a job, with the weights of its checkpoint, voting on the job's ablations.

    Args:
        job: the job.
        checkpoint: the job's, as a local file.
        checkpoint_key: the state dict to take; None if the file itself is one.
        device: where to compute.
        allow_code: whether code that the job names may run.
    Raises:
        RequestError: the weights are not that network's, or the network cannot vote.
    """
    network = load_classifier(job.model, job.preprocess, checkpoint, checkpoint_key, allow_code=allow_code)
    ablations = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop)
    return smooth(
        network,
        ablations,
        preprocess=job.preprocess,
        format=Format.of(job.model, job.model.dtype),
        device=device,
    )


def smooth(
    network: nn.Module, shown: Shown, *, preprocess: Preprocess, format: Format, device: torch.device
) -> Smoothed:
    """The network in its engine, after a check that the engine computes what timm computes.

    Args:
        network: float32, in evaluation mode; taken over and changed.
        shown: the ablations of an image, before it is upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
        format: of the network.
        device: where to compute.
    Raises:
        RequestError: the network cannot vote, or its votes would be those of another network.
    """
    engine = SmoothedViT if has_tokens(network) else SmoothedDense
    expected = expected_logits(network.to(device), shown, preprocess=preprocess, format=format)
    exact_network = copy.deepcopy(network) if format.dtype != "float32" else network
    exact = engine(exact_network, shown, preprocess=preprocess, format=format.in_float32(), device=device)
    refuse_another_function(exact, expected, preprocess=preprocess, format=format)
    refuse_mixing(exact, preprocess=preprocess, format=format)
    if format.dtype == "float32":
        return exact
    return engine(network, shown, preprocess=preprocess, format=format, device=device)
