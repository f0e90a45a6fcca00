"""The votes of an image as a function of a patch on it. This is the module that attacks attack.

    a patch of each image -> pasted at its place -> votes of the touched ablations -> prediction, with the other votes

Only the ablations that a patch touches are computed. No patch can change the others, so their stored votes are added.
The rule family's prediction decides whether an image has fallen. It has no gradient and does not change with small
steps, so APGD sees sums of softmaxes in place of the counts of votes. Square sees counts.

    columns, rows, blocks   all votes are counted
    masks                   the votes of masks alone are counted, not those of their unions

If most masks show another class, double masking can return the prediction only by the row of a mask that still shows
it. The patch cannot change the rows of masks that hide it; if one of them is uniform, the image is certified there. In
every other row the mask's own vote suffices to break it, and that vote is counted. So unions need no gradient, which
halves the time. They are computed, because they decide.

    N images    S touched ablations of all images    A ablations    K classes    C channels    h x w patch

Not covered: how a patch is searched for (patches.py, library.py).
"""

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from smoothcert.workers.ablations.kinds import Ablations
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.votes.differentiable import Differentiable, logits_of

# The votes that count and that a patch touches move the scaled counts by this much: cross entropy does not underflow.
_SPREAD = 10.0


class Targets(NamedTuple):
    """Images, and where a patch lies on each.

    Attributes:
        images: [N, height, width, C] uint8.
        votes: [N, ablations] int64, in offset order; all were cast.
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
        ablations: those that voted.
        family: predicts by their votes.
        classes: K.
        at_once: ablations whose activations fit into memory together.
        whole_counts: the scores are counts, softmaxes only rank equal counts, and the largest is the prediction.
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
        ablations: Ablations,
        family: RuleFamily,
        classes: int,
        at_once: int,
        whole_counts: bool = False,
        follow_standing: bool = False,
    ) -> None:
        super().__init__()
        self._network, self._classes, self._at_once = network, classes, at_once
        self._ablations, self._family = ablations, family
        self.targets, self.predictions = targets, predictions
        self._whole_counts, self._follow = whole_counts, follow_standing
        images, device = len(targets.images), targets.images.device
        self._counted = ablations.num_masks if isinstance(ablations, MaskSet) else ablations.num_ablations
        votes_NC, touched_NC = targets.votes[:, : self._counted], targets.touched[:, : self._counted]
        self._fixed_NK = F.one_hot(votes_NC, classes).mul(~touched_NC[:, :, None]).sum(dim=1).float()
        touched_N = touched_NC.sum(dim=1).clamp(min=1)
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
        hard_PK, soft_PK, votes_PA = self._counts(exact[computed_R], rows_R[computed_R])
        fell_P = self._note(rows_R[computed_R], votes_PA, rounded[computed_R])
        scores_PK = self._scores(rows_R[computed_R], hard_PK, soft_PK)
        # An image that fell counts as another class from now on.
        away_RK = F.one_hot((self.predictions[rows_R] + 1) % self._classes, self._classes).float()
        scores_RK = away_RK.index_put((torch.nonzero(computed_R)[~fell_P, 0],), scores_PK[~fell_P])
        return scores_RK + 0 * patches_RChw.sum()  # has a gradient even if all fell

    def _counts(self, patches_PChw: Tensor, rows_P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Counts, sums of softmaxes, and votes of images with patches; untouched votes are part of all three."""
        targets = self.targets.part(rows_P)
        pixels_PCHW = targets.pasted(patches_PChw)
        hard_PK = soft_PK = self._fixed_NK[rows_P]
        votes_PA = targets.votes.clone()
        image_S, ablation_S = targets.touched.nonzero(as_tuple=True)
        counts_S = ablation_S < self._counted
        for those_S, counts in ((counts_S, True), (~counts_S, False)):
            images, ablations = image_S[those_S], ablation_S[those_S]
            if not len(images):
                continue
            with nullcontext() if counts else torch.no_grad():
                for group in self._network.groups(ablations, at_most=self._at_once):
                    own = images[group.images]
                    part = group._replace(images=own)
                    logits = logits_of(self._network, pixels_PCHW, part, recompute=len(images) > self._at_once)
                    votes_PA[own, group.ablations] = logits.argmax(dim=1)
                    if counts:
                        hard_PK = hard_PK.index_add(0, own, F.one_hot(logits.argmax(dim=1), self._classes).float())
                        soft_PK = soft_PK.index_add(0, own, logits.softmax(dim=1))
        self.forwards[rows_P] += 1
        return hard_PK, soft_PK, votes_PA

    def _note(self, rows_P: Tensor, votes_PA: Tensor, rounded_PChw: Tensor) -> Tensor:
        """Keep the patches that change predictions, and return for which images they do."""
        cast = Cast(votes_PA.cpu().numpy())
        now_P = self._family.ballots(cast, self._ablations, classes=self._classes).prediction
        fell_P = torch.from_numpy(now_P).to(rows_P.device) != self.predictions[rows_P]
        self.fell[rows_P[fell_P]] = True
        self.patches[rows_P[fell_P]] = rounded_PChw[fell_P].detach().to(torch.uint8)
        return fell_P

    def _scores(self, rows_P: Tensor, hard_PK: Tensor, soft_PK: Tensor) -> Tensor:
        if not self._whole_counts:
            return (soft_PK + self._tie_K) * self._scale_N1[rows_P]
        scores_PK, own_P1 = hard_PK + self._tie_K + soft_PK * self._rank_N1[rows_P], self.predictions[rows_P][:, None]
        # A mask may still return a class that most masks no longer show. It leads by less as its softmaxes shrink.
        most_P1, share_P1 = scores_PK.amax(dim=1, keepdim=True), soft_PK.gather(1, own_P1) / self._counted
        returned_P1 = torch.where(
            scores_PK.argmax(dim=1, keepdim=True) == own_P1, most_P1, most_P1 + (1 + share_P1) / 2
        )
        return scores_PK.scatter(1, own_P1, returned_P1)
