"""Rows of a run, judged by the rules of its job.

For squares, columns, rows and blocks have a column of each image's largest certified one. Masks answer for every patch
that some mask hides wherever it lies; for squares, too, their votes are asked.

Not covered: the rules (workers/certificates/).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from smoothcert.manifests.ablation import MaskAblation
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import Certificate, Claim, RuleName
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.majority import LARGEST_SQUARES
from smoothcert.workers.certificates.rules import Answer
from smoothcert.workers.runs.job_rules import JobRules
from smoothcert.workers.runs.votes_table import numbers_of

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows of a run. Their votes are counted once, when they are first asked.

    Attributes:
        table: the rows.
        job: of the run.
    """

    table: pa.Table
    job: Job

    @cached_property
    def rules(self) -> JobRules:
        return JobRules(self.job)

    @cached_property
    def voted(self) -> Bools:
        """[rows]: whether they have votes."""
        return np.asarray(pc.is_valid(self.table["votes"]))

    @cached_property
    def ballots(self) -> Any:
        """Of the rows that have votes."""
        return self.rules.count(self.table.filter(pa.array(self.voted)))

    def answer(self, threat: Threat | None, claim: Claim = Claim()) -> Answer:  # noqa: B008  frozen
        """The rule's answer for the rows that have votes; `threat` is None for what the masks were made for."""
        return self.rules.answer(self.ballots, threat, claim)

    def certified(self, threat: Threat | None, claim: Claim = Claim()) -> Bools:  # noqa: B008  frozen
        """[rows]: whether a claim is certified, as for `answer`; false without votes."""
        stored, is_square = stored_squares(self.job), threat is not None and threat[1:] == (threat.height, 1)
        if threat is not None and is_square and claim == Claim(rule=claim.rule) and claim.rule in stored:
            square: Bools = numbers_of(self.table[stored[claim.rule]]) >= threat.height
            return square
        certified = np.zeros(len(self.table), bool)
        if self.voted.any():
            certified[self.voted] = self.answer(threat, claim).certified
        return certified

    @cached_property
    def largest_squares(self) -> dict[RuleName, Ints]:
        """By rule, [rows]: the side of the largest square that cannot change the prediction; 0 for none."""
        if stored := stored_squares(self.job):
            return {rule: numbers_of(self.table[column]).clip(0) for rule, column in stored.items()}
        rules = self.rules.family.rules[Certificate.recovery]
        return {rule: self._largest_square(Claim(rule=rule)) for rule in rules}

    @cached_property
    def largest_noticed(self) -> Ints:
        """[rows]: the side of the largest square that cannot change the class of the whole image without an alarm, by
        the exact rule; 0 for none.
        """
        return self._largest_square(Claim(certificate=Certificate.detection))

    def _largest_square(self, claim: Claim) -> Ints:
        largest = np.zeros(len(self.table), np.int64)
        for side in range(1, self.rules.longest_square + 1):  # what is certified is certified for smaller ones, too
            certified = self.certified(Threat(side, side), claim)
            if not certified.any():
                break
            largest[certified] = side
        return largest


def stored_squares(job: Job) -> Mapping[RuleName, str]:
    """The column that holds the side of the largest certified square, by rule; empty for masks."""
    return {} if isinstance(job.ablation, MaskAblation) else LARGEST_SQUARES
