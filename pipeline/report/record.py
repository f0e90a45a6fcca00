"""The report as JSON.

Not covered: the figures (figures.py, sample.py); what people read (page.py).
"""

import json
from math import isnan
from typing import Any

from smoothcert.manifests.ablation import MaskAblation
from smoothcert.manifests.rules import Certificate
from smoothcert.pipeline.pages.patches import Success
from smoothcert.pipeline.report.figures import MARGINS, Detection, Share
from smoothcert.pipeline.report.gallery import Entry
from smoothcert.pipeline.report.report import Report
from smoothcert.pipeline.report.sample import SampleFigures

SCHEMA = 3
"""Raised when a key of the JSON changes its meaning or goes."""


KEYS = {
    "schema": "Raised when a key changes its meaning or goes.",
    "run_id": "The run.",
    "job": "Name of the job.",
    "path": "Folder or URL of the run.",
    "checkpoint_sha256": "SHA-256 of the weights, in hex.",
    "complete": "Whether `_SUCCESS` and the files of all shards are there.",
    "partial": "Whether images.limit leaves images out.",
    "identity": "What determines the votes, as in run.json.",
    "images": "Number of rows.",
    "labelled": "Whether the job has labels; otherwise certificates count whatever the class.",
    "status": "Number of rows of each status.",
    "clean": "Images whose whole is classified as their label says: a share, or null.",
    "smoothed": "Images whose prediction is the label: a share, or null.",
    "certified": "`patch: [h, w]` in pixels, `rule`, and a share, for each square that the votes answer for, and rule.",
    "own_threat": "What holds against what the masks were made for: `threat` as in the job, `patches`, and `recovery` "
    "and `detection`, each with a share by the `exact` and the `published` rule; `detection` is null without clean "
    "predictions, all of it for columns, rows and blocks.",
    "detection": "By masks, against squares: `certified` as above, by the exact rule (the class of the whole image is "
    "right, and cannot change without an alarm); `silent_correct` (right, and no alarm without an attack) and "
    "`false_alarms` are shares; null without masks or clean predictions.",
    "classes": "`number`, `images`, `clean`, `smoothed`, `certified` (numbers of images; exact rule), `falls_to` (the "
    "class that its other images are predicted as most often) and `fallen` (how many) of each class.",
    "errors": "`status`, `error` and number of `images`, the most frequent first.",
    "votes": "Number of votes.",
    "fragile": "`margin_below`, and the number of `votes` with smaller margins.",
    "sample": "What needs a look at every vote, of a random sample: certified shares of rectangles, against one and "
    "two patches, and the mean slack by place; null if no image has votes. A rectangle is null if the votes do not "
    "answer for it.",
    "fragile_images": "The right predictions that are closest to a change.",
    "sturdy_images": "The right predictions that are furthest from a change.",
    "brackets": "For each size of `patch` that attacks tried: `certified_accuracy`, and `accuracy_under_attack` with "
    "`share`, `low`, `high` (95 %); the numbers of images `right`, `certified` (and right), `attacked` and `fell` (of "
    "those that are right and not certified), `attacked_certified`; `fallen_certified`, which must be empty: shard and "
    "position; `studies`: the attacks. Without labels every prediction is right.",
    "fallen_images": "Images whose prediction a patch changed: `becomes`, place of the `patch`, `slack` there, and the "
    "`attack` that found it.",
    "environments": "Number of files of votes from each environment (versions, decoder, device).",
    "seconds": "Seconds of work on shards, all together.",
}
"""What report.json holds. A share is an object with `count`, `images`, `share` (from 0 to 1) and its exact 95 %
`interval`."""


def json_of(report: Report) -> str:
    """All figures; shares have `count`, `images`, `share` and `interval`."""
    return json.dumps(as_json(report), indent=1) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """The same as an object."""
    figures, run = report.figures, report.run
    return {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "job": run.name,
        "path": run.url,
        "checkpoint_sha256": run.checkpoint_sha256,
        "complete": report.complete,
        "partial": run.partial,
        "identity": run.record.identity,
        "images": figures.images,
        "labelled": figures.labelled,
        "status": figures.status,
        "clean": _share(figures.clean),
        "smoothed": _share(figures.smoothed),
        "certified": [
            {"patch": [side, side], "rule": rule, **(_share(share) or {})}
            for rule, shares in figures.certified.items()
            for side, share in enumerate(shares, start=1)
        ],
        "own_threat": _own_threat(report),
        "detection": _detection(figures.detection),
        "classes": [one._asdict() for one in figures.classes],
        "errors": [{"status": status, "error": error, "images": count} for status, error, count in figures.errors],
        "votes": figures.votes,
        "fragile": [
            {"margin_below": limit, "votes": count} for limit, count in zip(MARGINS, figures.fragile, strict=True)
        ],
        "sample": None if report.sample is None else _sample(report.sample),
        "fragile_images": [_image(one) for one in report.fragile],
        "sturdy_images": [_image(one) for one in report.sturdy],
        "brackets": [one.as_json() for one in report.brackets],
        "fallen_images": [_fallen(one) for one in report.fallen],
        "environments": figures.environments,
        "seconds": figures.seconds,
    }


def headline_as_json(report: Report) -> dict[str, Any]:
    """What the headline says, in keys of the whole."""
    whole = as_json(report)
    names = [
        *("run_id", "job", "path", "checkpoint_sha256", "complete", "partial", "images"),
        *("clean", "smoothed", "own_threat", "detection"),
    ]
    side = report.figures.side
    certified = [one for one in whole["certified"] if one["patch"] == [side, side]]
    bracket = None if report.bracket is None else report.bracket.as_json()
    return {name: whole[name] for name in names} | {"certified": certified, "bracket": bracket}


def _share(share: Share | None) -> dict[str, Any] | None:
    if share is None:
        return None
    return {"count": share.count, "images": share.images, "share": share.value, "interval": list(share.interval)}


def _own_threat(report: Report) -> dict[str, Any] | None:
    ablation = report.run.job.ablation
    if not isinstance(ablation, MaskAblation):
        return None
    shares = {
        certificate.value: {rule.value: _share(share) for rule, share in by_rule.items()}
        for certificate, by_rule in report.figures.own_threat.items()
    }
    threat = {"threat": ablation.model_dump(mode="json")["threat"], "patches": ablation.threat_patches}
    return threat | {name.value: shares.get(name) for name in Certificate}


def _detection(found: Detection | None) -> dict[str, Any] | None:
    if found is None:
        return None
    certified = [
        {"patch": [side, side], "rule": "exact", **(_share(share) or {})}
        for side, share in enumerate(found.certified, start=1)
    ]
    return {"certified": certified, "silent_correct": _share(found.silent), "false_alarms": _share(found.false_alarms)}


def _sample(sample: SampleFigures) -> dict[str, Any]:
    return {
        "images": sample.images,
        "seed": sample.seed,
        "class": sample.of_class,
        "heights": list(sample.heights),
        "widths": list(sample.widths),
        "rectangles": [[None if isnan(share) else share for share in row] for row in sample.rectangles.tolist()],
        "sides": list(sample.sides),
        "one_patch": [_share(share) for share in sample.one],
        "two_patches": [_share(share) for share in sample.two],
        "two_patches_is_bound": sample.two_is_bound,
        "atlas": {
            "patch": [sample.atlas_side] * 2,
            "tops": list(sample.tops),
            "lefts": list(sample.lefts),
            "mean_slack": sample.atlas.tolist(),
        },
    }


def _fallen(one: Success) -> dict[str, Any]:
    names = ("shard", "key", "label", "prediction", "becomes", "slack", "attack")
    return {
        **{name: getattr(one, name) for name in names},
        "patch": [one.box.height, one.box.width],
        "top": one.box.top,
        "left": one.box.left,
        "picture": one.picture.reason or "shown",
    }


def _image(entry: Entry) -> dict[str, Any]:
    one = entry.exhibit
    names = ("shard", "key", "label", "prediction", "largest", "top", "left", "slack", "becomes")
    shown = {name: getattr(one, name) for name in names}
    return shown | {"patch": [one.height, one.width], "picture": entry.picture.reason or "shown"}
