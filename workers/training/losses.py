"""The loss that a network is trained on: plain cross-entropy here, others in modules of their own.

A loss is computed for images that go through the network together. It is summed over them, because their number differs
from group to group (learner.py).

    S images    C channels    H, W height and width    K classes
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from smoothcert.manifests.errors import RunError
from smoothcert.manifests.training import Training
from smoothcert.workers.votes.differentiable import Differentiable


class Together(NamedTuple):
    """Images that go through the network together.

    Attributes:
        pixels: [S, C, H, W], 0 to 1.
        group: of the forward pass; its `images` are positions in `pixels`.
        targets: [S] classes, or [S, K] shares of classes if images were mixed.
        seeds: [S] float64, 0 to below 1, from which the random numbers of each image follow.
    """

    pixels: Tensor
    group: Any
    targets: Tensor
    seeds: Tensor

    @property
    def classes(self) -> Tensor:
        """[S] the class of each image; of mixed images, the one with the largest share."""
        return self.targets if self.targets.ndim == 1 else self.targets.argmax(dim=1)


class Scored(NamedTuple):
    """The loss, summed over the images, and their logits [S, K]."""

    loss: Tensor
    logits: Tensor


class Loss(ABC):
    """A loss.

    Attributes:
        trained: parameters of the loss itself, if it has any.
    """

    trained: Sequence[Parameter] = ()

    @abstractmethod
    def __call__(self, together: Together, epochs: float) -> Scored:
        """Compute the loss.

        Args:
            together: the images.
            epochs: done so far, which may be a fraction.
        """

    def step(self) -> None:  # noqa: B027  most losses have nothing to update
        """Update `trained`; their gradients are those of the mean loss of all processes."""

    def state(self) -> dict[str, Any] | None:
        """All that the next step depends on, besides the network."""
        return None

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027  nor a state
        """Continue from what `state` returned."""


class ForwardPass:
    """The network under its ablations, in the number format of the training.

    Args:
        training: the training file.
        forward: the network.
    """

    def __init__(self, training: Training, forward: Differentiable) -> None:
        self.forward = forward
        self._bfloat16 = training.precision == "bfloat16"

    def __call__(self, pixels_SCHW: Tensor, group: Any) -> Tensor:
        """[S, K] float32 logits of the images of a group."""
        return self.classify(self.forward.inputs(pixels_SCHW, group), group)

    def classify(self, inputs_SCHW: Tensor, group: Any) -> Tensor:
        """The same from the network's own inputs.

        Raises:
            RunError: a batch norm has nothing to learn from.
        """
        try:
            with torch.autocast(inputs_SCHW.device.type, torch.bfloat16, enabled=self._bfloat16):
                return self.forward.classify(inputs_SCHW, group).float()
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RunError(
                "a batch norm cannot learn from a single image, but the last batch of an epoch, or of a process, "
                "holds only one; change batch_size or images_per_forward"
            ) from None


def cross_entropy(training: Training, logits_SK: Tensor, targets: Tensor) -> Tensor:
    """The summed cross-entropy, with the label smoothing of the training file; mixed targets are smoothed already."""
    smoothing = training.regularisation.label_smoothing if targets.ndim == 1 else 0.0
    return F.cross_entropy(logits_SK, targets, reduction="sum", label_smoothing=smoothing)


class CrossEntropy(Loss):
    """The cross-entropy of the images as they are."""

    def __init__(self, training: Training, forward_pass: ForwardPass) -> None:
        self._training, self._pass = training, forward_pass

    def __call__(self, together: Together, epochs: float) -> Scored:  # noqa: ARG002  other losses need it
        logits_SK = self._pass(together.pixels, together.group)
        return Scored(cross_entropy(self._training, logits_SK, together.targets), logits_SK)
