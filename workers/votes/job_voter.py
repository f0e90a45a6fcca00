"""What a job asks of its model for each image: votes, certificates and, with `clean`, the class of the whole image.

    pixels of some images -> ImageVotes       on the device, a batch at a time
    votes of a shard      -> certificates     on the CPU, all images together

Not covered: loading the model (voters.py); computing a vote (smoothed.py); rows and files (runs/).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from smoothcert.manifests.job import Job
from smoothcert.workers.ablations.kinds import Ablations
from smoothcert.workers.ablations.masks import MaskSet
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.certificates.tally import NOBODY
from smoothcert.workers.votes.early_exit import needed_votes
from smoothcert.workers.votes.self_check import made_up_image
from smoothcert.workers.votes.smoothed import Smoothed, Votes


class ImageVotes(NamedTuple):
    """What a model says about some images.

    Attributes:
        classes: [images, ablations] uint16, in offset order; int32 with -1 for votes that no certificate needs, if the
            job leaves these out.
        margins: [images, ablations] float32, NaN for these.
        clean_classes: [images] int64, of the whole images; None if the job does not ask for them.
        clean_margins: [images] float32, likewise.
        finite: [images] bool, false where a logit of the image is not finite.
    """

    classes: NDArray[np.integer]
    margins: NDArray[np.float32]
    clean_classes: NDArray[np.int64] | None
    clean_margins: NDArray[np.float32] | None
    finite: NDArray[np.bool_]


@dataclass(frozen=True)
class JobVoter:
    """A job and its loaded model.

    Attributes:
        job: the job.
        model: votes on images of the job's crop.
        ablations: of the job.
    """

    job: Job
    model: Smoothed
    ablations: Ablations

    def vote(self, pixels: Tensor) -> ImageVotes:
        """Vote on images, [images, crop, crop, channels] uint8."""
        votes = self._ablated_votes(pixels)
        clean = self.model.clean_votes(pixels) if self.job.clean else None  # queued before the CPU waits for a result
        margins = votes.margins.cpu().numpy()
        classes: NDArray[np.integer] = (
            votes.classes.cpu().numpy().astype(np.int32 if self.job.ablation.early_exit else np.uint16)
        )
        finite = (np.isfinite(margins) | (classes == NOBODY)).all(axis=1)
        if clean is None:
            return ImageVotes(classes, margins, None, None, finite)
        clean_margins = clean.margins[:, 0].cpu().numpy()
        finite &= np.isfinite(clean_margins)
        return ImageVotes(classes, margins, clean.classes[:, 0].cpu().numpy(), clean_margins, finite)

    def _ablated_votes(self, pixels: Tensor) -> Votes:
        if not self.job.ablation.early_exit:
            return self.model.votes(pixels)
        assert isinstance(self.ablations, MaskSet)
        return needed_votes(self.model, pixels, self.ablations)

    def predict(self, cast: Cast) -> NDArray[np.int32]:
        """[images]: the prediction. Certificates take far longer."""
        prediction: NDArray[np.int32] = self.family.ballots(
            cast, self.ablations, classes=self.job.model.classes
        ).prediction
        return prediction

    @property
    def family(self) -> RuleFamily:
        """The rules for the job's kind of ablation."""
        return family_of(self.job.ablation)

    def certify(self, cast: Cast) -> Any:
        """The columns that the family stores, [images] each."""
        return self.family.certify(cast, self.ablations, classes=self.job.model.classes)

    def sample_logits(self) -> NDArray[np.float32]:
        """[classes]: the logits of an image that is the same on every machine."""
        pixels = made_up_image(self.job.preprocess)[None]
        logits: NDArray[np.float32] = self.model.clean_logits(pixels)[0, 0].cpu().numpy()
        return logits
