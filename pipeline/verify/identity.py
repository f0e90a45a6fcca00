"""run.json against itself: what it says twice must agree, above all what determines the votes.

The identity leaves out values that equal their default. The defaults are repeated here, so that the check notices if
those of the job file change.

Not covered: whether run.json can be read at all (record.py); types of the entries that it says once (entries.py).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from smoothcert.pipeline.verify.entries import RUN_JSON, check_entries
from smoothcert.pipeline.verify.findings import Finding, shown
from smoothcert.pipeline.verify.record import CheckedRun, RecordedMasks, RunRecord, same_json

RECORDED_ELSEWHERE = {"shards", "split", "limit", "label_names", "checkpoint", "checkpoint_key"}
"""Keys of the job that the identity records in another form."""
NOT_RECORDED = {"class_names"}
"""Keys of the job in the same parts on which no vote depends."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "images": {"image": ["jpg", "jpeg", "png", "webp"], "label": "cls", "first_label": 0, "version": None},
    "model": {"options": {}, "code_version": None, "ignore": [], "dtype": "float32", "masked_tokens": "drop"},
    "preprocess": {"resize": 256, "squash": False, "crop": 224, "interpolation": "bilinear", "orient": False}
    | {"decoder": "pillow"}
    | {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "upsample": 1},
}
"""Values that the identity leaves out."""
ABLATION_DEFAULTS: dict[bool, dict[str, Any]] = {
    False: {"stride": 1, "edges": "wrap"},
    True: {"fill": "mean", "threat_patches": 1, "early_exit": False},
}
"""Those of the ablation, by whether it is masks."""


def check_record(run: CheckedRun) -> Iterator[Finding]:
    """Find the entries of run.json that are wrong, and those that contradict others."""
    record, job = run.record, run.content["job"]
    mistakes = {finding.entry: finding for finding in check_entries(run.content)}
    yield from mistakes.values()
    run_id = _run_id_of(record.identity)
    if run_id != record.run_id:
        yield Finding(RUN_JSON, f"is {shown(record.run_id)}, the identity gives {run_id}", "run_id")
    stored, expected = flat(record.identity), flat(_identity_of(record, job))
    for key in sorted(stored.keys() | expected.keys()):
        found, given = (side.get(key, "left out") for side in (stored, expected))
        if not same_json(found, given):
            yield Finding(RUN_JSON, f"is {shown(found)}, the other entries give {shown(given)}", f"identity.{key}")
    for key, found, other, given in (
        ("name", record.name, "job.name", job.get("name")),
        ("checkpoint.url", record.checkpoint.url, "job.model.checkpoint", job["model"].get("checkpoint")),
    ):
        if found != given and not {key, other} & mistakes.keys():
            yield Finding(RUN_JSON, f"is {shown(found)}, the job says {shown(given)}", key)
    if not _limits_agree(record):
        limit, partial = record.job.images.limit, record.partial
        yield Finding(RUN_JSON, f"their limits do not go with images.limit {limit}, partial {partial}", "shards")


def _sha256_of(names: object) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _run_id_of(identity: Mapping[str, Any]) -> str:
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:16]


def _identity_of(record: RunRecord, job: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that the job, the shards and the checkpoint of run.json give."""
    checkpoint = record.checkpoint
    defaults = DEFAULTS | {"ablation": ABLATION_DEFAULTS[isinstance(record.job.ablation, RecordedMasks)]}
    identity: dict[str, Any] = {part: _without_defaults(job[part], usual) for part, usual in defaults.items()}
    identity["images"]["shards"] = [[shard.name, shard.size] for shard in record.shards]
    names = job["images"].get("label_names")
    identity["images"] |= {} if names is None else {"label_names_sha256": _sha256_of(names)}
    identity["images"] |= {"limit": record.job.images.limit} if record.partial else {}
    identity["model"]["checkpoint_sha256"] = checkpoint.sha256
    identity["model"] |= {} if checkpoint.key is None else {"checkpoint_key": checkpoint.key}
    identity |= {} if record.job.clean else {"clean": False}
    return identity | {"votes_version": record.votes_version}


def _without_defaults(part: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in part.items()
        if key not in RECORDED_ELSEWHERE | NOT_RECORDED and not (key in usual and same_json(value, usual[key]))
    }


def flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Its entries, named PART.KEY, or PART where a part is a single value."""
    parts = {part: value if isinstance(value, dict) else {"": value} for part, value in identity.items()}
    return {f"{part}.{key}".rstrip("."): value for part, values in parts.items() for key, value in values.items()}


def _limits_agree(record: RunRecord) -> bool:
    limits = [shard.limit for shard in record.shards if shard.limit is not None]
    if not record.partial:
        return not limits
    return len(limits) == len(record.shards) and sum(limits) == record.job.images.limit
