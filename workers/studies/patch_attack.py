"""Patches that change predictions: searched at the weakest places first, counted after a vote by the engine that voted.

    for each place   APGD with each loss and restart, then Square; images that fell are left out

The votes of ablations that the patch does not touch are those of the run. A certificate is about these votes, so an
attack on a certified image can succeed only if the certificate, or the engine, is wrong.

Not covered: one run of an attack (attacks/patches.py).
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import PatchAttack
from smoothcert.workers.attacks.patches import SQUARE, Found, Ints, PatchAttacker, Voted
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.tally import NOBODY
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.votes_table import column
from smoothcert.workers.studies.measures import Kind, Loader, Studied
from smoothcert.workers.votes.differentiable import differentiable

_LEAST_CLASSES_OF_DLR = 3  # it compares three logits; with fewer it is left out

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
    Raises:
        RequestError: a loss needs more classes.
    """

    def __init__(self, settings: PatchAttack, loader: Loader) -> None:
        job, self._rules = loader.job, JobRules(loader.job)
        ablations, patch = self._rules.ablations, (settings.height, settings.width)
        keep_hidden = job.model.masked_tokens == "keep"
        twin = differentiable(loader.network(), [ablations], job.preprocess, keep_hidden=keep_hidden)
        self._settings = settings
        self.attacker = PatchAttacker(
            twin,
            loader.voter(),
            ablations,
            self._rules.family,
            patch,
            classes=job.model.classes,
            device=loader.device,
        )
        losses = [loss for loss in settings.losses if loss != "dlr" or job.model.classes >= _LEAST_CLASSES_OF_DLR]
        if settings.steps and not losses:
            raise RequestError(f"--loss dlr: needs {_LEAST_CLASSES_OF_DLR} classes; use ce")
        runs = [f"apgd-{loss}" for loss in losses for _ in range(settings.restarts)] if settings.steps else []
        self._runs = [*runs, *([SQUARE] if settings.queries else [])]

    @property
    def forwards(self) -> int:
        """How often images were computed so far."""
        return self.attacker.forwards

    def measure(self, images: Studied) -> list[dict[str, Any]]:
        """The columns of each image."""
        assert images.votes is not None
        voted = self.attacker.voted(images.pixels, images.votes)
        counted = self._rules.count_cast(Cast(voted.votes))
        slack = self._rules.slack_everywhere(counted, self._settings.height, self._settings.width)
        progress = _Progress(voted, slack)
        places = np.stack([self._places(*one) for one in zip(slack, images.seeds, strict=True)])
        for number, chosen in enumerate(places.T, start=1):
            self._attack_places(progress, chosen, [seed + 1000 * number for seed in images.seeds])
        return progress.rows()

    def _places(self, slack: Ints, seed: int) -> Ints:
        """[places]: the weakest places of an image, then random ones. Places of equal slack are shuffled."""
        shuffled = np.random.default_rng(seed).permutation(len(slack))
        ranked = shuffled[slack[shuffled].argsort(kind="stable")]
        chosen, rest = ranked[: self._settings.places], ranked[self._settings.places :]
        random = np.random.default_rng([seed, 1]).permutation(rest)[: self._settings.random_places]
        return np.concatenate([chosen, random])

    def _attack_places(self, progress: "_Progress", places: Ints, seeds: Sequence[int]) -> None:
        """Attack the images that stand, each at one of its places, with one attack after the other."""
        corners = np.stack(np.divmod(places, self._rules.ablations.width - self._settings.width + 1), axis=1)
        progress.tried[progress.standing()] += 1
        for number, name in enumerate(self._runs):
            standing = progress.standing()
            if not len(standing):
                return
            found_now = self.attacker.attack(
                progress.images.part(standing),
                corners[standing],
                name,
                steps=self._settings.steps,
                queries=self._settings.queries,
                seed=seeds[standing[0]] + 10 * number,
            )
            progress.note(standing, found_now, name, places, corners)


class _Progress:
    """What has become of images so far.

    Args:
        images: the images.
        slack: [images, places].
    Attributes:
        tried: [images], how many places were tried.
    """

    def __init__(self, images: Voted, slack: Ints) -> None:
        self.images, self._slack = images, slack
        count = len(slack)
        self.tried = np.zeros(count, np.int64)
        self._forwards, self._unconfirmed = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._found: list[dict[str, Any] | None] = [None] * count

    def standing(self) -> Ints:
        """Positions of the images that have not fallen."""
        return np.array([image for image, found in enumerate(self._found) if found is None], np.int64)

    def note(self, standing: Ints, found_now: Found, attack: str, places: Ints, corners: Ints) -> None:
        """Add what an attack has found.

        Args:
            standing: the images that it saw.
            found_now: for each of these.
            attack: its name.
            places, corners: of all images.
        """
        self._forwards[standing] += found_now.forwards
        self._unconfirmed[standing] += found_now.unconfirmed
        for number in np.flatnonzero(found_now.becomes != NOBODY).tolist():
            image = int(standing[number])
            top, left = corners[image].tolist()
            self._found[image] = {
                "becomes": int(found_now.becomes[number]),
                "top": top,
                "left": left,
                "place_slack": int(self._slack[image, places[image]]),
                "attack": attack,
                "patch": _png(found_now.patches[number]),
            }

    def rows(self) -> list[dict[str, Any]]:
        """The columns of each image."""
        return [
            {
                "prediction": int(self.images.predictions[image]),
                "slack": int(self._slack[image].min()),
                "fell": found is not None,
                "places": int(self.tried[image]),
                "forwards": int(self._forwards[image]),
                "unconfirmed": int(self._unconfirmed[image]),
                **(found or {}),
            }
            for image, found in enumerate(self._found)
        ]


def _png(patch_Chw: Tensor) -> bytes:
    pixels = patch_Chw.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


KIND = Kind(COLUMNS, needs_votes=True, measures=PatchAttackMeasures)
