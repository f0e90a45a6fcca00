"""The whole-image classifier as a module that attacks take: pixels between 0 and 1 in, logits out.

Normalisation and upsampling are inside, so a size of change is in pixels, as papers have it. It is float32.
"""

import torch
from torch import Tensor, nn

from smoothcert.manifests.job import Preprocess
from smoothcert.workers.ablations.shown import Masks
from smoothcert.workers.votes.differentiable import differentiable, logits_of
from smoothcert.workers.votes.smoothed import without_tf32

_AT_ONCE = 64  # images with a backward pass


class WholeImages(nn.Module):
    """Images [N, C, height, width], 0 to 1, to logits [N, K].

    Args:
        network: float32, in evaluation mode.
        preprocess: of its job.
        device: where to compute.
    Attributes:
        forwards: images computed so far.
    """

    def __init__(self, network: nn.Module, preprocess: Preprocess, device: torch.device) -> None:
        super().__init__()
        without_tf32()
        whole = [Masks.whole(preprocess.crop, preprocess.crop)]
        self._forward = differentiable(network, whole, preprocess)
        self._forward.to_device(device)
        self.eval()
        self.forwards = 0

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        self.forwards += len(pixels_NCHW)
        whole = torch.zeros(len(pixels_NCHW), dtype=torch.int64, device=pixels_NCHW.device)
        groups = list(self._forward.groups(whole, at_most=_AT_ONCE))
        return torch.cat([logits_of(self._forward, pixels_NCHW, group, recompute=len(groups) > 1) for group in groups])
