"""The vote counts of an image as a function of a patch on it. This is the module that attacks attack.

    a patch of each image -> pasted at its place -> votes of the touched ablations -> counts, with the other votes

Only the ablations that a patch touches are computed. No patch can change the others, so their stored votes are added.
The forward pass returns counts, so a change of the prediction is a real one. The backward pass uses the sum of the
votes' softmaxes in their place, because counts have no gradient.

    N images    S touched ablations of all images    K classes    C channels    h x w patch

Not covered: how a patch is searched for (library.py); places (places.py).
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from smoothcert.workers.ablations.kinds import Ablations
from smoothcert.workers.votes.ablated_dense import AblatedDense
from smoothcert.workers.votes.ablated_forward import AblatedForward

_SPREAD = 10.0  # the touched votes of an image move its scaled counts by this much: cross entropy does not underflow


class Targets(NamedTuple):
    """Images, and where a patch lies on each.

    Attributes:
        images: [N, height, width, C] uint8.
        votes: [N, ablations] int64, in offset order.
        touched: [N, ablations] bool, the ablations that the patch touches.
        places: [N, 2] int64, top and left pixel of the patch.
        height, width: of the patch.
    """

    images: Tensor
    votes: Tensor
    touched: Tensor
    places: Tensor
    height: int
    width: int

    @classmethod
    def of(
        cls,
        images: Tensor,
        votes: Tensor,
        places: NDArray[np.int64],
        patch: tuple[int, int],
        ablations: Ablations,
    ) -> "Targets":
        """Find what patches touch; arguments as the attributes."""
        touched = np.stack([ablations.touched_at(*patch, top, left) for top, left in places.tolist()])
        device = images.device
        return cls(images, votes, torch.from_numpy(touched).to(device), torch.from_numpy(places).to(device), *patch)

    def part(self, images: Tensor) -> "Targets":
        """Those of some images."""
        return self._replace(
            images=self.images[images],
            votes=self.votes[images],
            touched=self.touched[images],
            places=self.places[images],
        )

    def own_patches(self) -> Tensor:
        """[N, C, h, w], 0 to 1: the pixels that the patches would hide."""
        rows, columns = self._pixels()
        each = torch.arange(len(self.images), device=self.images.device)[:, None, None]
        return self.images[each, rows, columns].permute(0, 3, 1, 2).float() / 255

    def pasted(self, patches_NChw: Tensor) -> Tensor:
        """[N, C, height, width], 0 to 1: the images with patches on them."""
        rows, columns = self._pixels()
        each = torch.arange(len(self.images), device=self.images.device)[:, None, None]
        images_NHWC = self.images.float() / 255
        return images_NHWC.index_put((each, rows, columns), patches_NChw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _pixels(self) -> tuple[Tensor, Tensor]:
        """Pixel rows [N, h, 1] and columns [N, 1, w] of the patches."""
        device = self.images.device
        rows = self.places[:, 0, None, None] + torch.arange(self.height, device=device)[None, :, None]
        columns = self.places[:, 1, None, None] + torch.arange(self.width, device=device)[None, None, :]
        return rows, columns


class PatchedVotes(nn.Module):
    """Patches [N, C, h, w], 0 to 1, to scaled counts [N, K] whose largest is the prediction, as ties are resolved.

    Args:
        network: in evaluation mode; its only kind of ablation is the one that voted.
        targets: the images and places.
        classes: K.
        at_once: ablations in one forward pass.
    Attributes:
        forwards: [N], how often each image was computed.
    """

    def __init__(self, network: AblatedForward | AblatedDense, targets: Targets, *, classes: int, at_once: int) -> None:
        super().__init__()
        self._network, self._targets, self._classes, self._at_once = network, targets, classes, at_once
        self._image_S, self._ablation_S = targets.touched.nonzero(as_tuple=True)
        self._fixed_NK = F.one_hot(targets.votes, classes).mul(~targets.touched[:, :, None]).sum(dim=1).float()
        self._scale_N1 = _SPREAD / targets.touched.sum(dim=1, keepdim=True).clamp(min=1)
        # Ties go to the lowest class; half a vote is less than any difference of counts.
        self._tie_K = torch.arange(classes, device=targets.images.device) / (-2 * classes)
        self.forwards = torch.zeros(len(targets.images), dtype=torch.int64)

    def forward(self, patches_NChw: Tensor) -> Tensor:
        pixels_NCHW = self._targets.pasted(patches_NChw)
        shape = len(pixels_NCHW), self._classes
        hard_NK, soft_NK = pixels_NCHW.new_zeros(shape), pixels_NCHW.new_zeros(shape)
        for group in self._network.groups(self._ablation_S, at_most=self._at_once):
            image_S = self._image_S[group.images]
            logits_SK = self._network(pixels_NCHW, group._replace(images=image_S)).float()
            hard_NK.index_add_(0, image_S, F.one_hot(logits_SK.argmax(dim=1), self._classes).float())
            soft_NK = soft_NK.index_add(0, image_S, logits_SK.softmax(dim=1))
        self.forwards += 1
        counts_NK = self._fixed_NK + hard_NK + soft_NK - soft_NK.detach()
        return (counts_NK + self._tie_K) * self._scale_N1
