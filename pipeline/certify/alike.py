"""Do all actors of a run vote alike? Each classifies one fixed image before its first shard.

The introduction of the run's first actor is published once, as introduction.json. Every driver compares its actors with
it. Machines may differ in versions and devices, which every file records. Their logits for the same image must agree.

Not covered: that the actors hold the same checkpoint (workers/certifier.py compares its bytes).
"""

from collections.abc import Iterable

import numpy as np

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.json_file import parse
from smoothcert.workers.runs.layout import INTRODUCTION
from smoothcert.workers.runs.records import IntroductionRecord
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import Introduction

# How much logits may differ, as a share of the largest: far more than by rounding, far less than between models.
_LOGIT_TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 2e-2, "int8": 1e-1}


class Alike:
    """Compares each actor with the run's first.

    Args:
        run: the run.
        dtype: number format of the job's model.
        strict: whether the environments must be equal as well.
        published: environments of the files published so far.
    Raises:
        RequestError: strict, and the published environments differ.
    """

    def __init__(self, run: Run, dtype: str, *, strict: bool, published: Iterable[str] = ()) -> None:
        self._run = run
        self._tolerance, self._strict = _LOGIT_TOLERANCE[dtype], strict
        self._first: Introduction | None = None
        self._environments: set[str] = set()
        self.add_published(published)

    def add_published(self, environments: Iterable[str]) -> None:
        """Compare the environments of published files; errors as for the constructor."""
        for environment in environments:
            self._add_environment(environment)

    def check(self, actor: Introduction) -> None:
        """Compare an actor with the first one and, if strict, its environment with all before it.

        Raises:
            RunError: its logits or its votes_version differ from the first actor's.
            RequestError: strict, and its environment differs.
        """
        first = self._first = self._first or _first_of(self._run, actor)
        largest = np.abs(np.nan_to_num(first.logits)).max()
        near = np.allclose(actor.logits, first.logits, rtol=0, atol=self._tolerance * largest, equal_nan=True)
        if not near or actor.votes_version != first.votes_version:
            apart = np.abs(actor.logits - first.logits).max()
            raise RunError(
                f"{actor.node} and {first.node} do not vote alike (votes_version {actor.votes_version} and "
                f"{first.votes_version}; the logits of one image differ by {apart:.3g}, the largest is {largest:.3g}): "
                f"{environment_of(actor.environment)} against {environment_of(first.environment)}; use machines that "
                "agree"
            )
        self._add_environment(environment_of(actor.environment))

    def _add_environment(self, environment: str) -> None:
        self._environments.add(environment)
        if self._strict and len(self._environments) > 1:
            raise RequestError(
                f"--strict-versions: {' against '.join(sorted(self._environments))}; use equal machines, or leave "
                "the option out"
            )


def _first_of(run: Run, actor: Introduction) -> Introduction:
    """The run's first actor: this one, unless the run has recorded an earlier one."""
    run.store.publish(run.url, INTRODUCTION, _record_of(actor).encode())
    url = f"{run.url}/{INTRODUCTION}"
    first = parse(IntroductionRecord, run.store.read(url), url)
    return Introduction(
        run.run_id, first.node, first.environment, first.votes_version, np.array(first.logits, np.float32)
    )


def _record_of(actor: Introduction) -> IntroductionRecord:
    return IntroductionRecord(
        node=actor.node,
        environment=dict(actor.environment),
        votes_version=actor.votes_version,
        logits=tuple(actor.logits.tolist()),
    )
