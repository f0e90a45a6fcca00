"""The forward pass of training for a network that computes every pixel, hidden ones too.

AblatedForward (ablated_forward.py) has the same methods and leaves hidden tokens out, which this network cannot.
A batch norm learns from the images of one group, so the network depends on how many images a group has.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Painted
from smoothcert.workers.votes.visible import VisiblePixels


class DenseGroup(NamedTuple):
    """Images that go through the network together: [S] positions in the batch, and [S] the ablation of each."""

    images: Tensor
    ablations: Tensor


class AblatedDense(nn.Module):
    """A network and the ablations under which it learns, numbered as in VisiblePixels.

    Args:
        network: any classifier of timm.
        kinds: ablations of images before they are upsampled.
        preprocess: mean and std of the channels, and how often a pixel is repeated.
    """

    def __init__(self, network: nn.Module, kinds: Sequence[Painted], preprocess: Preprocess) -> None:
        super().__init__()
        self.network = network
        self._kinds = kinds
        self._visible = VisiblePixels(kinds, torch.device("cpu"))
        self._mean_C11, self._std_C11 = (
            torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std)
        )
        self._upsample = preprocess.upsample

    def to_device(self, device: torch.device) -> None:
        """Move network and tables."""
        self.network.to(device)
        self._visible = VisiblePixels(self._kinds, device)
        self._mean_C11, self._std_C11 = self._mean_C11.to(device), self._std_C11.to(device)

    def groups(self, ablations: Tensor, *, at_most: int) -> Iterator[DenseGroup]:
        """Split the batch into groups.

        Args:
            ablations: [images] int64, the number of each image's ablation.
            at_most: largest number of images in a group.
        """
        images = torch.arange(len(ablations), device=ablations.device)
        yield from map(DenseGroup, images.split(at_most), ablations.split(at_most))

    def visible(self, group: DenseGroup) -> Tensor:
        """[S, 1, height, width] bool: the pixels that the ablations of a group show."""
        return self._visible.of(group.ablations)[:, None]

    def forward(self, pixels_NCHW: Tensor, group: DenseGroup) -> Tensor:
        """[S, K] logits of the images of a group.

        Args:
            pixels_NCHW: [images, channels, height, width], 0 to 1, of the whole batch.
            group: of this batch.
        """
        return self.classify(self.inputs(pixels_NCHW, group), group)

    def inputs(self, pixels_NCHW: Tensor, group: DenseGroup) -> Tensor:
        """[S, channels, side, side]: what the network sees of a group, normalised; arguments as for `forward`."""
        visible_S1HW = self.visible(group)
        shown_SCHW = (pixels_NCHW[group.images] * visible_S1HW - self._mean_C11) / self._std_C11
        if self._visible.fill == "mean":
            shown_SCHW = shown_SCHW * visible_S1HW
        return F.interpolate(shown_SCHW, scale_factor=self._upsample, mode="nearest")

    def classify(self, inputs_SCHW: Tensor, group: DenseGroup) -> Tensor:  # noqa: ARG002  AblatedForward needs it
        """[S, K] logits of the `inputs` of a group."""
        return self.network(inputs_SCHW)
