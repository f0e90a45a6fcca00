"""Do all actors vote alike? Each classifies one fixed image before its first shard.

Machines may differ in versions and devices, which is recorded with every file; what they say of the same image
may not. Not covered: that they hold the same checkpoint (workers/certifier.py compares its bytes).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from manifests.errors import RequestError, RunError
from workers.shard_task import Introduction

# How far apart logits may lie, as a share of the largest: far above rounding, far below another model's.
_NEAR = {"float32": 1e-3, "bfloat16": 1e-1, "float16": 2e-2}
ENVIRONMENT = ("versions", "decoder", "device")
"""Keys of a file's metadata that say what made it."""


class Alike:
    """Compares each actor with the first.

    Args:
        dtype: of the job's model.
        strict: environments must be equal too.
        published: environments of the files that the run has already.
    """

    def __init__(self, dtype: str, *, strict: bool, published: Iterable[str] = ()) -> None:
        self._near, self._strict = _NEAR[dtype], strict
        self._environments = set(published)
        self._first: Introduction | None = None

    def check(self, actor: Introduction) -> None:
        """Compare an actor with those before it.

        Raises:
            RunError: its logits, or its votes_version, are not the others'.
            RequestError: strict, and its environment is another.
        """
        first = self._first = self._first or actor
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
        self._environments.add(environment_of(actor.environment))
        if self._strict and len(self._environments) > 1:
            raise RequestError(
                f"--strict-versions: {' against '.join(sorted(self._environments))}; use equal machines, or leave "
                "the option out"
            )


def environment_of(metadata: Mapping[str, Any]) -> str:
    """What made a file, or what an actor is, in one comparable line."""
    return json.dumps({key: metadata.get(key) for key in ENVIRONMENT}, sort_keys=True)
