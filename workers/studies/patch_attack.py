"""Patches that change predictions: searched at the weakest places first, counted after a vote by the engine that voted.

    for each place   APGD with each loss and restart, then Square; images that fell are left out

The votes of ablations that the patch does not touch are those of the run. A certificate is about these votes, so an
attack on a certified image can succeed only if the certificate, or the engine, is wrong.

Not covered: the module that is attacked (attacks/patched_votes.py); the optimisers (attacks/library.py).
"""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from smoothcert.manifests.studies import PatchAttack
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.attacks.library import Attacked
from smoothcert.workers.attacks.patched_votes import PatchedVotes, Targets
from smoothcert.workers.certificates.rules import Ballots, slack_everywhere
from smoothcert.workers.certificates.tally import count_votes
from smoothcert.workers.runs.votes_table import column
from smoothcert.workers.studies.measures import Kind, Loader, Studied
from smoothcert.workers.votes.differentiable import differentiable

_AT_ONCE = {"cpu": 4096, "cuda": 1 << 14}  # ablations in one forward pass
_WHOLE_SPACE = 1.0  # an L-infinity ball of this radius around any patch holds all patches

COLUMNS = pa.schema(
    [
        column("prediction", pa.int32(), "Class of the smoothed classifier, from the run.", nullable=True),
        column("slack", pa.int32(), "Smallest slack of any place; 0 or more: certified.", nullable=True),
        column("fell", pa.bool_(), "Whether a patch was found that changes the prediction.", nullable=True),
        column("becomes", pa.int32(), "The prediction with the patch; null if none was found.", nullable=True),
        column("top", pa.int32(), "First pixel row of the patch.", nullable=True),
        column("left", pa.int32(), "First pixel column of the patch.", nullable=True),
        column("place_slack", pa.int32(), "Slack of that place.", nullable=True),
        column("places", pa.int32(), "How many places were tried.", nullable=True),
        column("attack", pa.string(), "What found the patch: apgd-ce, apgd-dlr or square.", nullable=True),
        column("forwards", pa.int32(), "How often the touched ablations were computed.", nullable=True),
        column("unconfirmed", pa.int32(), "Patches that the voting engine did not confirm.", nullable=True),
        column("patch", pa.binary(), "The patch, a PNG file.", nullable=True),
    ]
)


class PatchAttackMeasures:
    """Attacks images with patches.

    Args:
        settings: how.
        loader: of the run's network.
    """

    def __init__(self, settings: PatchAttack, loader: Loader) -> None:
        job, crop = loader.job, loader.job.preprocess.crop
        self._settings, self._classes, self._device = settings, job.model.classes, loader.device
        self._ablations = ablations_of(job.ablation, crop, crop)
        self._engine = loader.voter()
        keep_hidden = job.model.masked_tokens == "keep"
        self.network = differentiable(loader.network(), [self._ablations], job.preprocess, keep_hidden=keep_hidden)
        self.network.to_device(self._device)
        self.network.eval()
        self._patch = (settings.height, settings.width)
        self._reach = self._ablations.everywhere(*self._patch)
        self._forwards_before = 0
        self._module: PatchedVotes | None = None

    @property
    def forwards(self) -> int:
        """How often images were computed so far."""
        return self._forwards_before + (0 if self._module is None else int(self._module.forwards.sum()))

    def measure(self, images: Studied) -> list[dict[str, Any]]:
        """The columns of each image."""
        assert images.votes is not None
        siege = _Siege(images, self._classes)
        slack = slack_everywhere(siege.ballots, self._reach)
        places = np.stack(
            [self._places(*one) for one in zip(slack, images.seeds, strict=True)]
        )  # [images, places], numbers of sets
        for place in places.T:
            self._attack_place(siege, place, slack, images)
        return siege.rows(slack)

    def _places(self, slack: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """[places]: the weakest places of an image, then random ones. Places of equal slack are shuffled."""
        shuffled = np.random.default_rng(seed).permutation(len(slack))
        ranked = shuffled[slack[shuffled].argsort(kind="stable")]
        chosen, rest = ranked[: self._settings.places], ranked[self._settings.places :]
        random = np.random.default_rng([seed, 1]).permutation(rest)[: self._settings.random_places]
        return np.concatenate([chosen, random])

    def _attack_place(
        self, siege: "_Siege", place: NDArray[np.int64], slack: NDArray[np.int64], images: Studied
    ) -> None:
        """Attack the images that stand, each at a place of its own."""
        settings = self._settings
        corners = self._reach.places(place)[:, 0]
        siege.places[siege.standing()] += 1
        plan = [(f"apgd-{loss}", start) for loss in settings.losses for start in range(settings.restarts)]
        plan = (plan if settings.steps else []) + ([("square", 0)] if settings.queries else [])
        for number, (attack, start) in enumerate(plan):
            standing = siege.standing()
            if not len(standing):
                return
            module = self._module_of(siege, standing, corners[standing], images, attack)
            seed = images.seeds[standing[0]] + 1000 * int(siege.places[standing[0]]) + 10 * number + start
            self._run(module, attack, siege.predictions(standing, self._device), seed)
            confirmed = self._confirmed(siege, module, standing, corners[standing], images)
            siege.note(standing, module, confirmed, corners, slack[np.arange(len(place)), place], attack)

    def _module_of(
        self,
        siege: "_Siege",
        standing: NDArray[np.int64],
        corners: NDArray[np.int64],
        images: Studied,
        attack: str,
    ) -> PatchedVotes:
        assert images.votes is not None
        targets = Targets.of(
            images.pixels[standing].to(self._device),
            torch.from_numpy(images.votes[standing]).to(self._device),
            corners,
            self._patch,
            self._ablations,
        )
        self._forwards_before = self.forwards
        self._module = PatchedVotes(
            self.network,
            targets,
            siege.predictions(standing, self._device),
            classes=self._classes,
            at_once=_AT_ONCE[self._device.type],
            whole_counts=attack == "square",
            follow_standing=attack == "square",
        )
        self._targets = targets
        return self._module

    def _run(self, module: PatchedVotes, attack: str, predictions: Tensor, seed: int) -> None:
        start, attacked = self._targets.own_patches(), Attacked(module, "Linf", _WHOLE_SPACE)
        if attack == "square":
            attacked.square_once(start, predictions, queries=self._settings.queries, seed=seed)
        else:
            loss = attack.removeprefix("apgd-")
            attacked.apgd_once(start, predictions, loss=loss, steps=self._settings.steps, seed=seed)

    def _confirmed(
        self,
        siege: "_Siege",
        module: PatchedVotes,
        standing: NDArray[np.int64],
        corners: NDArray[np.int64],
        images: Studied,
    ) -> NDArray[np.int64]:
        """[standing]: the predictions of the engine with the patches that were found; -1 where it stays or none was."""
        becomes = np.full(len(standing), -1)
        fell = np.flatnonzero(module.fell.cpu().numpy())
        if not len(fell):
            return becomes
        assert images.votes is not None
        patched = images.pixels[standing[fell]].clone()
        for image, (top, left), patch in zip(patched, corners[fell].tolist(), module.patches[fell].cpu(), strict=True):
            image[top : top + self._patch[0], left : left + self._patch[1]] = patch.permute(1, 2, 0)
        voted = self._engine.votes(patched).classes.cpu().numpy()
        touched = self._targets.touched[fell].cpu().numpy()
        votes = np.where(touched, voted, images.votes[standing[fell]])
        predictions = count_votes(votes, classes=self._classes).prediction
        changed = predictions != siege.ballots.tally.prediction[standing[fell]]
        becomes[fell[changed]] = predictions[changed]
        return becomes


class _Siege:
    """What has become of each image so far.

    Args:
        images: the images.
        classes: of the network.
    """

    def __init__(self, images: Studied, classes: int) -> None:
        assert images.votes is not None
        self.ballots = Ballots.of(images.votes, classes=classes)
        count = len(images.pixels)
        self.places = np.zeros(count, np.int64)
        self._forwards, self._unconfirmed = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._found: list[dict[str, Any] | None] = [None] * count

    def standing(self) -> NDArray[np.int64]:
        """Positions of the images that have not fallen."""
        return np.array([place for place, found in enumerate(self._found) if found is None], np.int64)

    def predictions(self, images: NDArray[np.int64], device: torch.device) -> Tensor:
        """[images] int64: the classes that an attack must change."""
        return torch.from_numpy(self.ballots.tally.prediction[images].astype(np.int64)).to(device)

    def note(
        self,
        standing: NDArray[np.int64],
        module: PatchedVotes,
        becomes: NDArray[np.int64],
        corners: NDArray[np.int64],
        slack: NDArray[np.int64],
        attack: str,
    ) -> None:
        """Add what one run of an attack has found."""
        self._forwards[standing] += module.forwards.cpu().numpy()
        self._unconfirmed[standing] += module.fell.cpu().numpy() & (becomes < 0)
        for place in np.flatnonzero(becomes >= 0).tolist():
            image = int(standing[place])
            top, left = corners[image].tolist()
            self._found[image] = {
                "becomes": int(becomes[place]),
                "top": top,
                "left": left,
                "place_slack": int(slack[image]),
                "attack": attack,
                "patch": _png(module.patches[place]),
            }

    def rows(self, slack: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The columns of each image."""
        return [
            {
                "prediction": int(self.ballots.tally.prediction[image]),
                "slack": int(slack[image].min()),
                "fell": found is not None,
                "places": int(self.places[image]),
                "forwards": int(self._forwards[image]),
                "unconfirmed": int(self._unconfirmed[image]),
                **(found or {}),
            }
            for image, found in enumerate(self._found)
        ]


def _png(patch_Chw: Tensor) -> bytes:
    pixels = patch_Chw.permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


KIND = Kind(COLUMNS, needs_votes=True, measures=PatchAttackMeasures)
