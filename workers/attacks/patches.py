"""One run of one attack on images, each with a patch at a place of its own.

    images, votes, places -> PatchedVotes -> APGD or Square -> patches that change the votes -> confirmed by the engine

Gradients need a float32 copy of the network. The engine votes in the number format of the run, and its votes alone say
whether a patch counts.

Not covered: which places are tried, and in which order (studies/patch_attack.py).
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothcert.workers.ablations.kinds import Ablations
from smoothcert.workers.attacks.library import Attacked
from smoothcert.workers.attacks.patched_votes import PatchedVotes, Targets
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.certificates.tally import NOBODY
from smoothcert.workers.votes.differentiable import Differentiable
from smoothcert.workers.votes.smoothed import Smoothed

SQUARE = "square"
_AT_ONCE = {"cpu": 512, "cuda": 2048}  # ablations with a backward pass: 4 and 17 GB for ViT-S, column 19
_WHOLE_SPACE = 1.0  # an L-infinity ball of this radius around any patch holds all patches

Ints = NDArray[np.int64]


class Voted(NamedTuple):
    """Images with their votes.

    Attributes:
        pixels: [N, height, width, channels] uint8, on the CPU.
        votes: [N, ablations], in offset order; all were cast.
        predictions: [N], by these votes.
    """

    pixels: Tensor
    votes: Ints
    predictions: Ints

    def part(self, images: Ints) -> "Voted":
        """Some of the images."""
        return Voted(self.pixels[images], self.votes[images], self.predictions[images])


class Found(NamedTuple):
    """What an attack has found for each image.

    Attributes:
        becomes: [N], the prediction with the patch; NOBODY where none was found.
        patches: [N, channels, h, w] uint8; arbitrary where none was found.
        unconfirmed: [N] bool, where a patch was found that the engine did not confirm.
        forwards: [N], how often the touched ablations were computed.
    """

    becomes: Ints
    patches: Tensor
    unconfirmed: NDArray[np.bool_]
    forwards: Ints


class PatchAttacker:
    """Attacks a smoothed classifier.

    Args:
        network: its differentiable twin, whose only kind of ablation is the one that votes.
        engine: the classifier itself.
        ablations: those that vote.
        family: predicts by their votes.
        patch: height and width, in pixels.
        classes: of the network.
        device: where the network is.
    """

    def __init__(
        self,
        network: Differentiable,
        engine: Smoothed,
        ablations: Ablations,
        family: RuleFamily,
        patch: tuple[int, int],
        *,
        classes: int,
        device: torch.device,
    ) -> None:
        network.to_device(device)
        network.eval()
        self._network, self._engine, self._ablations, self._family = network, engine, ablations, family
        self._patch, self._classes, self._device = patch, classes, device
        self._done = 0
        self._module: PatchedVotes | None = None

    @property
    def forwards(self) -> int:
        """How often images were computed so far, also while an attack runs."""
        module = self._module  # another thread runs the attack
        return self._done + (0 if module is None else int(module.forwards.sum()))

    def voted(self, pixels: Tensor, votes: Ints) -> Voted:
        """Images with all their votes.

        A vote that was left out changes nothing while other votes break the rows of its masks. A patch may change
        these, so it is cast now.

        Args:
            pixels: as in `Voted`.
            votes: [N, ablations], NOBODY where none was cast.
        """
        missing = votes == NOBODY
        if missing.any():
            cast_now = self._engine.some_votes(pixels, torch.from_numpy(missing)).classes.cpu().numpy()
            votes = np.where(missing, cast_now, votes)
        return Voted(pixels, votes, self._predictions(votes))

    def _predictions(self, votes: Ints) -> Ints:
        ballots = self._family.ballots(Cast(votes), self._ablations, classes=self._classes)
        predictions: Ints = ballots.prediction.astype(np.int64)
        return predictions

    def module(self, images: Voted, places: Ints, *, square: bool = False) -> PatchedVotes:
        """What is attacked.

        Args:
            images: the images.
            places: [N, 2], top and left pixel of each patch.
            square: for Square, which compares counts and leaves out images that fell.
        """
        targets = Targets.of(
            images.pixels.to(self._device),
            torch.from_numpy(images.votes).to(self._device),
            places,
            self._patch,
            self._ablations,
        )
        return PatchedVotes(
            self._network,
            targets,
            torch.from_numpy(images.predictions).to(self._device),
            ablations=self._ablations,
            family=self._family,
            classes=self._classes,
            at_once=_AT_ONCE[self._device.type],
            whole_counts=square,
            follow_standing=square,
        )

    def attack(self, images: Voted, places: Ints, name: str, *, steps: int, queries: int, seed: int) -> Found:
        """Run an attack.

        Args:
            images, places: as for `module`.
            name: apgd-LOSS, or square.
            steps, queries: of APGD, and of Square.
            seed: of all that is random.
        """
        module = self._module = self.module(images, places, square=name == SQUARE)
        attacked, own = Attacked(module, "Linf", _WHOLE_SPACE), module.targets.own_patches()
        if name == SQUARE:
            attacked.square_once(own, module.predictions, queries=queries, seed=seed)
        else:
            attacked.apgd_once(own, module.predictions, loss=name.removeprefix("apgd-"), steps=steps, seed=seed)
        becomes, fell = self._confirmed(images, places, module), module.fell.cpu().numpy()
        self._module = None
        self._done += int(module.forwards.sum())
        return Found(becomes, module.patches.cpu(), fell & (becomes == NOBODY), module.forwards.cpu().numpy())

    def _confirmed(self, images: Voted, places: Ints, module: PatchedVotes) -> Ints:
        """[N]: the predictions by the engine's votes on images that fell; NOBODY where they stay, or none was found."""
        becomes = np.full(len(places), NOBODY, np.int64)
        fell = np.flatnonzero(module.fell.cpu().numpy())
        if not len(fell):
            return becomes
        (height, width), found = self._patch, module.patches.cpu()
        patched = images.pixels[fell].clone()
        for pixels, image in zip(patched, fell.tolist(), strict=True):
            top, left = places[image].tolist()
            pixels[top : top + height, left : left + width] = found[image].permute(1, 2, 0)
        voted = self._engine.votes(patched).classes.cpu().numpy()
        touched = module.targets.touched.cpu().numpy()[fell]
        now = self._predictions(np.where(touched, voted, images.votes[fell]))
        changed = now != images.predictions[fell]
        becomes[fell[changed]] = now[changed]
        return becomes
