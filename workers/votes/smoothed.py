"""A base classifier that votes on ablations: what all engines share.

A vote depends on the pixels of its own ablation and on nothing else. So ablations of different images can be computed
together, as many as memory allows.

    N images              A ablations of an image     S sequences: each one ablation of one image
    K classes

Covered: batching, votes, margins. Not covered: the logits themselves (smoothed_vit.py, smoothed_dense.py).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from smoothcert.workers.ablations.shown import Shown
from smoothcert.workers.votes.memory import keep_freed_memory


class Votes(NamedTuple):
    """What the base classifier says about each ablation.

    Attributes:
        classes: [images, ablations] int64, the lowest class on a tie.
        margins: [images, ablations] float32, top logit minus second; NaN where a logit is not finite.
    """

    classes: Tensor
    margins: Tensor


class Computed(NamedTuple):
    """The logits of some sequences, and the image and ablation of each."""

    images: Tensor  # [S] int64
    ablations: Tensor  # [S] int64
    logits: Tensor  # [S, K] float32


class Smoothed(ABC):
    """A base classifier and the ablations on which it votes.

    Args:
        num_ablations: of an image.
        num_classes: of the base classifier.
        device: where to compute.
        at_once: how much to compute in one go, in the unit of `cost` in `_in_parts`.
    """

    def __init__(self, *, num_ablations: int, num_classes: int, device: torch.device, at_once: int) -> None:
        without_tf32()
        if device.type == "cpu":
            keep_freed_memory()
        self._num_ablations, self._num_classes, self._device = num_ablations, num_classes, device
        self._at_once = at_once

    def votes(self, images: Tensor) -> Votes:
        """Vote on every ablation.

        Args:
            images: [images, height, width, channels] uint8.
        Raises:
            torch.OutOfMemoryError: the device has no room for a single sequence.
        """
        return self._votes(self._ablated_logits(images), len(images), self._num_ablations)

    def some_votes(self, images: Tensor, wanted: Tensor) -> Votes:
        """Vote on some ablations of each image.

        Args:
            images: as for `votes`.
            wanted: [images, ablations] bool.
        Returns:
            The classes are -1 and the margins NaN where no vote was wanted.
        """
        return self._votes(self._ablated_logits(images, wanted.to(self._device)), len(images), self._num_ablations)

    def clean_votes(self, images: Tensor) -> Votes:
        """Classify whole images, [images, 1] each; arguments as for `votes`."""
        return self._votes(self._whole_logits(images), len(images), 1)

    def logits(self, images: Tensor) -> Tensor:
        """[images, ablations, classes] float32. For tests: `votes`, with the same arguments, needs far less memory."""
        return self._logits(self._ablated_logits(images), len(images), self._num_ablations)

    def clean_logits(self, images: Tensor) -> Tensor:
        """[images, 1, classes] float32 of whole images; arguments as for `votes`."""
        return self._logits(self._whole_logits(images), len(images), 1)

    @abstractmethod
    def one_logits(self, image: Tensor, ablation: Shown, *, keep_hidden: bool) -> Tensor:
        """[classes] float32 of one image under one ablation, which need not be one of those that vote.

        Args:
            image: [height, width, channels] uint8.
            ablation: one ablation, before it is upsampled.
            keep_hidden: compute hidden tokens, too; an engine that drops none always does.
        """

    @abstractmethod
    def _ablated_logits(self, images: Tensor, wanted: Tensor | None = None) -> Iterator[Computed]:
        """Every ablation of every image once, or every one that is wanted ([images, ablations] bool), in any order."""

    @abstractmethod
    def _whole_logits(self, images: Tensor) -> Iterator[Computed]:
        """Every image once, whole, as its ablation 0."""

    def _in_parts(
        self, sequences: Tensor, cost: int, compute: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Sequences and their logits, in as few parts as memory allows. Parts have equal sizes, because a small last
        one would be slow.

        Args:
            sequences: [S] their numbers.
            cost: of one sequence.
            compute: gives the logits of the sequences of some numbers.
        """
        left = sequences
        while len(left):
            parts = math.ceil(len(left) / max(1, self._at_once // cost))
            part = left[: math.ceil(len(left) / parts)]
            try:
                logits_SK = compute(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self._at_once //= 2  # for good: what did not fit once will not fit again
                continue
            yield part, logits_SK
            left = left[len(part) :]

    def _votes(self, computed: Iterator[Computed], images: int, num_ablations: int) -> Votes:
        classes_NA = torch.full((images, num_ablations), -1, device=self._device, dtype=torch.int64)
        margins_NA = torch.full((images, num_ablations), math.nan, device=self._device, dtype=torch.float32)
        for image_S, ablation_S, logits_SK in computed:
            votes = _votes_of(logits_SK)
            classes_NA[image_S, ablation_S], margins_NA[image_S, ablation_S] = votes.classes, votes.margins
        return Votes(classes_NA, margins_NA)

    def _logits(self, computed: Iterator[Computed], images: int, num_ablations: int) -> Tensor:
        logits_NAK = torch.empty((images, num_ablations, self._num_classes), device=self._device, dtype=torch.float32)
        for image_S, ablation_S, logits_SK in computed:
            logits_NAK[image_S, ablation_S] = logits_SK
        return logits_NAK


def without_tf32() -> None:
    """Compute float32 in full precision on every GPU."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False  # of convolutions


def upsampled(images_NHWC: Tensor, times: int) -> Tensor:
    """Every pixel repeated `times` along both sides."""
    return images_NHWC.repeat_interleave(times, 1).repeat_interleave(times, 2)


def _votes_of(logits_SK: Tensor) -> Votes:
    top = logits_SK.topk(2, dim=-1).values
    finite = logits_SK.isfinite().all(dim=-1)
    margins = (top[..., 0] - top[..., 1]).masked_fill(~finite, float("nan"))
    return Votes(logits_SK.argmax(dim=-1), margins)
