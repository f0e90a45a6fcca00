"""The vote counts of an image as a function of a patch on it. This is the module that attacks attack.

    a patch of each image -> pasted at its place -> votes of the touched ablations -> counts, with the other votes

Only the ablations that a patch touches are computed. No patch can change the others, so their stored votes are added.
Counts decide whether an image has fallen. They have no gradient and do not change with small steps, so APGD sees sums
of softmaxes in their place. Square sees counts.

    N images    S touched ablations of all images    K classes    C channels    h x w patch

Not covered: how a patch is searched for (patches.py, library.py).
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from smoothcert.workers.ablations.kinds import Ablations
from smoothcert.workers.votes.differentiable import Differentiable, logits_of

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
    """Patches [R, C, h, w], 0 to 1, to scores [R, K]; R is N, or how many images stand.

    A patch is rounded to 8 bits before it is pasted. As soon as its votes change the prediction of an image, the image
    has fallen: its patch is kept, and it is not computed again.

    Args:
        network: in evaluation mode; its only kind of ablation is the one that voted.
        targets: the images and places.
        predictions: [N] int64, the classes that the attack must change.
        classes: K.
        at_once: ablations whose activations fit into memory together.
        whole_counts: the scores are counts, whose largest is the prediction; softmaxes only rank equal counts.
            Otherwise they are sums of softmaxes, which tell a gradient attack how near it is.
        follow_standing: the caller leaves out the images that fell, as Square does, so R is how many stand.
    Attributes:
        targets, predictions: as given.
        fell: [N] bool.
        patches: [N, C, h, w] uint8, of the images that fell.
        forwards: [N] int64, how often each image was computed.
    """

    def __init__(
        self,
        network: Differentiable,
        targets: Targets,
        predictions: Tensor,
        *,
        classes: int,
        at_once: int,
        whole_counts: bool = False,
        follow_standing: bool = False,
    ) -> None:
        super().__init__()
        self._network, self._classes, self._at_once = network, classes, at_once
        self.targets, self.predictions = targets, predictions
        self._whole_counts, self._follow = whole_counts, follow_standing
        images, device = len(targets.images), targets.images.device
        self._fixed_NK = F.one_hot(targets.votes, classes).mul(~targets.touched[:, :, None]).sum(dim=1).float()
        touched_N = targets.touched.sum(dim=1).clamp(min=1)
        self._scale_N1 = _SPREAD / touched_N[:, None]
        # Ties go to the lowest class. All of these are less than one vote together.
        self._tie_K = torch.arange(classes, device=device) / (-2 * classes)
        self._rank_N1 = 1 / (4 * classes * touched_N[:, None])
        self.fell = torch.zeros(images, dtype=torch.bool, device=device)
        shape = (images, targets.images.shape[-1], targets.height, targets.width)
        self.patches = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.forwards = torch.zeros(images, dtype=torch.int64, device=device)

    def forward(self, patches_RChw: Tensor) -> Tensor:
        every_N = torch.arange(len(self.fell), device=self.fell.device)
        rows_R = every_N[~self.fell] if self._follow else every_N
        assert len(rows_R) == len(patches_RChw)  # whoever leaves images out leaves out those that fell
        computed_R = ~self.fell[rows_R]
        rounded = (patches_RChw * 255).round()
        exact = patches_RChw + (rounded / 255 - patches_RChw).detach()
        hard_PK, soft_PK = self._counts(exact[computed_R], rows_R[computed_R])
        fell_P = self._note(rows_R[computed_R], hard_PK, rounded[computed_R])
        scores_PK = self._scores(rows_R[computed_R], hard_PK, soft_PK)
        # An image that fell counts as another class from now on.
        away_RK = F.one_hot((self.predictions[rows_R] + 1) % self._classes, self._classes).float()
        scores_RK = away_RK.index_put((torch.nonzero(computed_R)[~fell_P, 0],), scores_PK[~fell_P])
        return scores_RK + 0 * patches_RChw.sum()  # has a gradient even if all fell

    def _counts(self, patches_PChw: Tensor, rows_P: Tensor) -> tuple[Tensor, Tensor]:
        """Counts, and sums of softmaxes, of images with patches; untouched votes count in both."""
        targets = self.targets.part(rows_P)
        pixels_PCHW = targets.pasted(patches_PChw)
        image_S, ablation_S = targets.touched.nonzero(as_tuple=True)
        hard_PK = soft_PK = self._fixed_NK[rows_P]
        for group in self._network.groups(ablation_S, at_most=self._at_once):
            own_S = image_S[group.images]
            part = group._replace(images=own_S)
            logits_SK = logits_of(self._network, pixels_PCHW, part, recompute=len(image_S) > self._at_once)
            hard_PK = hard_PK.index_add(0, own_S, F.one_hot(logits_SK.argmax(dim=1), self._classes).float())
            soft_PK = soft_PK.index_add(0, own_S, logits_SK.softmax(dim=1))
        self.forwards[rows_P] += 1
        return hard_PK, soft_PK

    def _note(self, rows_P: Tensor, hard_PK: Tensor, rounded_PChw: Tensor) -> Tensor:
        """Keep the patches that change predictions, and return for which images they do."""
        fell_P = (hard_PK + self._tie_K).argmax(dim=1) != self.predictions[rows_P]
        self.fell[rows_P[fell_P]] = True
        self.patches[rows_P[fell_P]] = rounded_PChw[fell_P].detach().to(torch.uint8)
        return fell_P

    def _scores(self, rows_P: Tensor, hard_PK: Tensor, soft_PK: Tensor) -> Tensor:
        if not self._whole_counts:
            return (soft_PK + self._tie_K) * self._scale_N1[rows_P]
        return hard_PK + self._tie_K + soft_PK * self._rank_N1[rows_P]
