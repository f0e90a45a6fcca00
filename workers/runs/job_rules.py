"""The rules of a job: they count the stored votes of its images, and decide what can be claimed of them.

Votes of columns, rows and blocks answer for every patch inside the image; those of masks for every patch that some mask
hides wherever it lies.
"""

import math
from bisect import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Area, MaskAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Claim
from smoothcert.workers.ablations.kinds import Ablations, ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.certificates.rules import Answer
from smoothcert.workers.runs.votes_table import cast_of


@dataclass(frozen=True)
class JobRules:
    """The family and the ablations of a job.

    Attributes:
        job: the job.
        times: of columns, rows and blocks, let only those vote whose stride is so many times the job's.
    """

    job: Job
    times: int = 1

    @property
    def ablations(self) -> Ablations:
        """Those that vote."""
        return self._voting[0]

    @cached_property
    def _voting(self) -> tuple[Ablations, NDArray[np.int64]]:
        """The ablations that vote, and the positions of their votes."""
        crop = self.job.preprocess.crop
        return ablations_of(self.job.ablation, crop, crop).coarser(self.times)

    @cached_property
    def family(self) -> RuleFamily:
        return family_of(self.job.ablation)

    def count(self, rows: pa.Table, *, tolerance: float = 0.0) -> Any:
        """Count the votes of rows for `answer`: the `Counted` of the family.

        Args:
            rows: with `votes`, which no row lacks, and what else the claims need: `margins`, `label`, and
                `clean_prediction` and `clean_margin`.
            tolerance: votes with smaller margins count as the attacker's.
        """
        return self.count_cast(cast_of(rows), tolerance=tolerance)

    def count_cast(self, cast: Cast, *, tolerance: float = 0.0, known: Any | None = None) -> Any:
        """The same for votes that are not in a table; `known` are these, counted with another tolerance."""
        chosen = cast if self.times == 1 else cast.by(self._voting[1])
        classes = self.job.model.classes
        return self.family.ballots(chosen, self.ablations, classes=classes, tolerance=tolerance, known=known)

    def slack_everywhere(self, counted: Any, height: int, width: int) -> NDArray[np.int64]:
        """[images, places]: the slack of the exact rule for a patch of this size at each place, in row-major order."""
        return self.family.slack_everywhere(counted, self.ablations, height, width)

    def answer(self, counted: Any, threat: Threat | None, claim: Claim = Claim()) -> Answer:  # noqa: B008  frozen
        """Decide a claim for each image.

        Args:
            counted: from `count`.
            threat: the patches; None for what the masks were made for.
            claim: what is claimed; by default that the prediction cannot change, by the exact rule.
        Raises:
            RequestError: the votes do not decide this claim, or not against such patches.
        """
        if threat is None:
            return self.family.answer_own_threat(counted, self.ablations, claim)
        return self.family.rule(claim)(counted, self.ablations, threat)

    def decide(self, counted: Any, threat: Threat | None, claim: Claim = Claim()) -> Answer:  # noqa: B008  frozen
        """The same, often sooner, but of the slack only the sign is to be used, and no place."""
        if threat is None:
            return self.family.answer_own_threat(counted, self.ablations, claim)
        return self.family.decide(claim, counted, self.ablations, threat)

    def is_bound(self, threat: Threat | None) -> bool:
        """Whether answers about a threat are only bounds."""
        return threat is not None and self.family.is_bound(self.ablations, threat)

    def refuse(self, threat: Threat) -> None:
        """Refuse patches about which the votes say nothing.

        Raises:
            RequestError: one line; of masks it says how large a square may be.
        """
        try:
            self.ablations.refuse(threat)
        except RequestError as error:
            if not isinstance(self.job.ablation, MaskAblation):
                raise
            side = self.longest(lambda side: Threat(side, side, threat.patches))
            raise RequestError(f"{error}; the largest square that this run answers is {side} x {side}") from None

    def answers(self, threat: Threat) -> bool:
        """Whether the votes say anything about these patches."""
        try:
            self.ablations.refuse(threat)
        except RequestError:
            return False
        return True

    def longest(self, threat_of: Callable[[int], Threat]) -> int:
        """The greatest length for which the votes have an answer; 0 for none.

        Args:
            threat_of: the patches of a length; those of a greater length contain them.
        """
        crop = self.job.preprocess.crop
        if not isinstance(self.job.ablation, MaskAblation):
            return crop
        return bisect(range(1, crop + 1), False, key=lambda length: not self.answers(threat_of(length)))

    @cached_property
    def longest_square(self) -> int:
        """The side of the largest square for which the votes have an answer."""
        return self.longest(lambda side: Threat(side, side))


def answered_by_all(sizes: Iterable[tuple[int, int]], *jobs: Job) -> list[tuple[int, int]]:
    """Those of the patches, by height and width, for which the votes of all jobs have an answer."""
    rules = [JobRules(job) for job in jobs]
    return [size for size in sizes if all(one.answers(Threat(*size)) for one in rules)]


def own_patches(job: Job) -> tuple[tuple[int, int], ...]:
    """Height and width of the patches that a job is about: its squares, or what its masks were made for.

    For an area this is the largest square within it.
    """
    if not isinstance(job.ablation, MaskAblation):
        return tuple((side, side) for side in job.patches)
    threat = job.ablation.threat
    if isinstance(threat, Area):
        side = min(math.isqrt(threat.pixels), job.preprocess.crop)
        return ((side, side),)
    return (threat,)
