"""Answers a grid of questions about the images of a file, and asks nothing that other answers of the grid imply.

A certificate holds against every threat that is no stronger: as many patches or fewer, as high and as wide or less, and
a tolerance that is no larger (docs/certificates.md, theorem 2). A class that stays among the first K stays among the
first K + 1. So of many sizes, the one in the middle is asked first, and those beside it only about the images that it
leaves open. Only exact answers imply others, so that no answer depends on what else is asked.

Not covered: the rules (workers/certificates); what is counted (answering.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from smoothcert.manifests.ablation import Area
from smoothcert.manifests.job import Job
from smoothcert.manifests.rules import RuleName
from smoothcert.pipeline.query.questions import Question, own_stride
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.cast import Cast
from smoothcert.workers.certificates.rules import Answer
from smoothcert.workers.runs.job_rules import JobRules

Bools = NDArray[np.bool_]


class _Step(NamedTuple):
    """A question, and the questions before it whose answers matter, all by position.

    Attributes:
        implied_by: where these are certified, so is this one.
        implies: where these are not, this one is not.
    """

    number: int
    implied_by: list[int]
    implies: list[int]


@dataclass(frozen=True)
class Grid:
    """Questions about the votes of a job.

    Attributes:
        job: the job.
        questions: from `questions_of`.
    """

    job: Job
    questions: Sequence[Question]

    def answers(self, cast: Cast, *, with_slack: bool) -> Iterator[tuple[int, Any, Answer]]:
        """For each question its position, the counted votes and the answer, in any order.

        Args:
            cast: votes of images.
            with_slack: else only the sign of the slack is right, and places are none.
        """
        ballots: dict[tuple[int | None, float], Any] = {}
        certified: dict[int, Bools] = {}
        for step in self._steps:
            question = self.questions[step.number]
            rules = self._rules[question.stride]
            same_votes = next((found for (stride, _), found in ballots.items() if stride == question.stride), None)
            counted = ballots.get((question.stride, question.tolerance))
            if counted is None:
                counted = rules.count_cast(cast, tolerance=question.tolerance, known=same_votes)
                ballots[question.stride, question.tolerance] = counted
            threat = _threat(question)
            if with_slack:
                yield step.number, counted, rules.answer(counted, threat, question.claim)
                continue
            holds = np.zeros(len(counted), bool)
            for other in step.implied_by:
                holds |= certified[other]
            is_open = ~holds
            for other in step.implies:
                is_open &= certified[other]
            if is_open.all():
                found = rules.decide(counted, threat, question.claim)
            else:
                found = rules.decide(counted.of_images(np.flatnonzero(is_open)), threat, question.claim)
                holds[is_open] = found.certified
                found = Answer.decided(holds, is_bound=found.is_bound)
            certified[step.number] = found.certified
            yield step.number, counted, found

    @cached_property
    def _rules(self) -> dict[int | None, JobRules]:
        own = own_stride(self.job)
        strides = {one.stride for one in self.questions}
        return {each: JobRules(self.job, 1 if each is None or own is None else each // own) for each in strides}

    @cached_property
    def _steps(self) -> list[_Step]:
        exact = [self._is_exact(question) for question in self.questions]
        order = sorted(range(len(self.questions)), key=lambda number: _strength(self.questions[number]))
        steps: list[_Step] = []
        for number in _middle_first(order):
            before = [step.number for step in steps if exact[step.number] and exact[number]]
            question = self.questions[number]
            implied_by = [other for other in before if _implies(self.questions[other], question)]
            implies = [other for other in before if _implies(question, self.questions[other])]
            steps.append(_Step(number, implied_by, implies))
        return steps

    def _is_exact(self, question: Question) -> bool:
        """Whether the answer is that of the exact rule for columns, rows or blocks, and no bound."""
        if question.stride is None or question.claim.rule != RuleName.exact:
            return False
        return not self._rules[question.stride].is_bound(_threat(question))


def _threat(question: Question) -> Threat | None:
    return None if isinstance(question.patch, Area) else Threat(*question.patch, question.patches)


def _implies(stronger: Question, weaker: Question) -> bool:
    """Whether the certificate of one question is one for another; both exact."""
    if isinstance(stronger.patch, Area) or isinstance(weaker.patch, Area):
        return False
    return (
        stronger.stride == weaker.stride
        and stronger.claim.of == weaker.claim.of
        and stronger.claim.top <= weaker.claim.top
        and stronger.patches >= weaker.patches
        and stronger.tolerance >= weaker.tolerance
        and stronger.patch[0] >= weaker.patch[0]
        and stronger.patch[1] >= weaker.patch[1]
    )


def _strength(question: Question) -> tuple[Any, ...]:
    """Sorts the questions that may imply one another, the stronger ones last."""
    size = (0, 0) if isinstance(question.patch, Area) else question.patch
    claim = question.claim
    return (question.stride or 0, claim.of, -claim.top, question.patches, question.tolerance, size[0] * size[1], size)


def _middle_first(numbers: Sequence[int]) -> Iterator[int]:
    """The one in the middle, then those of each half likewise."""
    if numbers:
        middle = len(numbers) // 2
        yield numbers[middle]
        yield from _middle_first(numbers[:middle])
        yield from _middle_first(numbers[middle + 1 :])
