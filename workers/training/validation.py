"""Held-out images: how often their ablations are classified correctly, and how many predictions are certified.

The code that certifies also makes these votes and certificates (votes/voters.py, certificates/rules.py).
"""

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from smoothcert.manifests.training import Training
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.training.data import LabelledImages
from smoothcert.workers.training.processes import Peers
from smoothcert.workers.votes.format import Format
from smoothcert.workers.votes.voters import smooth

_IMAGES_TOGETHER = 16


class Validated(NamedTuple):
    """Progress of a validation.

    Attributes:
        epoch: from 1.
        images: on which this process has voted.
        total: images of this process.
    """

    epoch: int
    images: int
    total: int


class Validator:
    """Held-out images; each process votes on its share.

    Args:
        training: the training file, which names the images.
        images: the part of this process; an image that cannot be read, or has no label, counts as wrong.
        peers: the processes.
        device: where to vote.
    Raises:
        RequestError: the ablations have no answer for a patch of the training file.
    """

    def __init__(self, training: Training, images: LabelledImages, peers: Peers, device: torch.device) -> None:
        crop = training.preprocess.crop
        self._training, self._images, self._peers, self._device = training, images, peers, device
        self._ablations = ablations_of(training.validated_ablation, crop, crop)
        self._patches = training.validation.patches if training.validation is not None else ()
        for side in self._patches:
            self._ablations.refuse(Threat(side, side))  # before the first epoch

    def figures(self, network: nn.Module, epoch: int) -> Generator[Validated, None, dict[str, Any]]:
        """Vote; return `ablation_accuracy`, `smoothed_accuracy` and `certified_accuracy`.

        Args:
            network: it is changed.
            epoch: from 1; for progress messages.
        """
        training, images = self._training, self._images
        voter = smooth(
            network.eval().requires_grad_(False),
            self._ablations,
            preprocess=training.preprocess,
            format=Format.of(training.model),
            device=self._device,
        )
        votes = np.zeros((len(images.labels), self._ablations.num_ablations), np.int64)
        for start in range(0, len(votes), _IMAGES_TOGETHER):
            together = slice(start, start + _IMAGES_TOGETHER)
            votes[together] = voter.votes(images.pixels[together]).classes.cpu().numpy()
            yield Validated(epoch, min(together.stop, len(votes)), len(votes))
        labels = images.labels.numpy()
        family = family_of(training.validated_ablation)
        counted = family.ballots(Cast(votes), self._ablations, classes=training.model.classes)
        right = counted.prediction == labels
        rule = family.rule()
        certified = [rule(counted, self._ablations, Threat(side, side)).certified & right for side in self._patches]
        counts = [(votes == labels[:, None]).mean(axis=1).sum(), right.sum(), *(held.sum() for held in certified)]
        total, *sums = self._peers.sum_over_all([len(labels) + images.left_out, *counts], self._device)
        shares = [right / total for right in sums]
        return {
            "ablation_accuracy": shares[0],
            "smoothed_accuracy": shares[1],
            "certified_accuracy": {str(side): share for side, share in zip(self._patches, shares[2:], strict=True)},
        }
