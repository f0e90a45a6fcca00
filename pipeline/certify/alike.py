"""Do all actors of a run vote alike? Each classifies one fixed image before its first shard.

What the run's first actor said is published once, as introduction.json; those of every driver are compared with it.
Machines may differ in versions and devices, which is recorded with every file; what they say of the same image may
not. Not covered: that they hold the same checkpoint (workers/certifier.py compares its bytes).
"""

import json
from collections.abc import Iterable

import numpy as np

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.workers.runs.environment import environment_of
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import Introduction

# How far apart logits may lie, as a share of the largest: far above rounding, far below another model's.
_NEAR = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 2e-2}
_NAME = "introduction.json"


class Alike:
    """Compares each actor with the run's first.

    Args:
        run: the run.
        dtype: of the job's model.
        strict: environments must be equal too.
        published: environments of the files that the run has already.
    Raises:
        RequestError: strict, and those differ.
    """

    def __init__(self, run: Run, dtype: str, *, strict: bool, published: Iterable[str] = ()) -> None:
        self._run = run
        self._near, self._strict = _NEAR[dtype], strict
        self._first: Introduction | None = None
        self._environments: set[str] = set()
        for environment in published:
            self._meet(environment)

    def check(self, actor: Introduction) -> None:
        """Compare an actor with the first one and, where that is asked for, its environment with all before it.

        Raises:
            RunError: its logits, or its votes_version, are not the first one's.
            RequestError: strict, and its environment is another.
        """
        first = self._first = self._first or _first_of(self._run, actor)
        scale = np.abs(np.nan_to_num(first.logits)).max()
        near = np.allclose(actor.logits, first.logits, rtol=0, atol=self._near * scale, equal_nan=True)
        if not near or actor.votes_version != first.votes_version:
            apart = np.abs(actor.logits - first.logits).max()
            raise RunError(
                f"{actor.node} and {first.node} do not vote alike (votes_version {actor.votes_version} and "
                f"{first.votes_version}; the logits of one image differ by {apart:.3g}, the largest is {scale:.3g}): "
                f"{environment_of(actor.environment)} against {environment_of(first.environment)}; use machines that "
                "agree"
            )
        self._meet(environment_of(actor.environment))

    def _meet(self, environment: str) -> None:
        self._environments.add(environment)
        if self._strict and len(self._environments) > 1:
            raise RequestError(
                f"--strict-versions: {' against '.join(sorted(self._environments))}; use equal machines, or leave "
                "the option out"
            )


def _first_of(run: Run, actor: Introduction) -> Introduction:
    """The run's first actor: this one, unless another driver or another day had one before it."""
    said = {**vars(actor), "logits": actor.logits.tolist()}
    run.store.publish(run.url, _NAME, json.dumps(said).encode())
    try:
        there = json.loads(run.store.read(f"{run.url}/{_NAME}"))
        return Introduction(**there | {"logits": np.array(there["logits"], np.float32)})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{run.url}/{_NAME} is damaged ({error!r}); move it away and run the same command again"
        ) from None
