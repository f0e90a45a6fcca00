"""What determines the votes, in canonical form, and the run id computed from it.

Two jobs with equal identity give equal votes, so they are one run. Their machines and their names may differ: name,
patches, class names, output, execution and storage are not part of the identity.

Covered: names and sizes of the shards. Not covered: data that changed behind equal names and sizes;
run.json keeps fingerprints for that (pipeline/certify/plan.py).
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from smoothcert.manifests.job import Job
from smoothcert.manifests.shards import Shard

VOTES_VERSION = 1
"""Raised whenever the same job would give other votes. A default of the job file never changes without it."""

RUN_ID_DIGITS = 16
_LEFT_OUT = object()


def identity_of(
    job: Job, shards: Sequence[Shard], *, checkpoint_sha256: str, checkpoint_key: str | None, limit: int | None
) -> dict[str, Any]:
    """The fields that determine the votes; fields with their default value are left out.

    Args:
        job: the job, its label_names as a list.
        shards: its tars in order; only base names and sizes count.
        checkpoint_sha256: hex digest of the checkpoint file.
        checkpoint_key: the state dict to use if the checkpoint has several.
        limit: the job's limit, or None if it leaves no image out.
    """
    images = job.images.model_dump(mode="json", exclude_defaults=True, exclude={"shards", "split", "limit"})
    if (names := images.pop("label_names", None)) is not None:
        images["label_names_sha256"] = hashlib.sha256(json.dumps(names).encode()).hexdigest()
    model = job.model.model_dump(
        mode="json", exclude_defaults=True, exclude={"checkpoint", "checkpoint_key", "class_names"}
    )
    identity: dict[str, Any] = {
        "images": images | {"shards": [[shard.name, shard.size] for shard in shards]},
        "model": model | {"checkpoint_sha256": checkpoint_sha256},
        "preprocess": job.preprocess.model_dump(mode="json", exclude_defaults=True),
        "ablation": job.ablation.model_dump(mode="json", exclude_defaults=True),
        "votes_version": VOTES_VERSION,
    }
    if limit is not None:
        identity["images"]["limit"] = limit
    if checkpoint_key is not None:
        identity["model"]["checkpoint_key"] = checkpoint_key
    if not job.clean:
        identity["clean"] = False
    return identity


def run_id_of(identity: dict[str, Any]) -> str:
    """The first RUN_ID_DIGITS hex digits of the SHA-256 of the identity's canonical JSON."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:RUN_ID_DIGITS]


def votes_identity_of(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of an identity that determines the rows of a tar, whichever tars the run has besides it.

    The version of the images is left out, too: it tells apart data of equal names and sizes, and whoever asks knows
    the SHA-256 of the tar.
    """
    images = identity.get("images")
    if not isinstance(images, dict):
        return identity  # of a damaged run, equal to no other
    return identity | {
        "images": {key: value for key, value in images.items() if key not in ("shards", "limit", "version")}
    }


def differences(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """List the key paths at which two identities differ."""
    found = []
    for key in sorted(then.keys() | now.keys()):
        one, other = (side.get(key, _LEFT_OUT) for side in (then, now))  # null is a value
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}")
    return found
