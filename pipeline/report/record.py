"""The report as JSON.

Not covered: the figures (figures.py, sample.py); what people read (page.py).
"""

import json
from typing import Any

from smoothcert.pipeline.report.figures import MARGINS, Share
from smoothcert.pipeline.report.gallery import Entry
from smoothcert.pipeline.report.report import Report
from smoothcert.pipeline.report.sample import SampleFigures

SCHEMA = 1
"""Raised when a key of the JSON changes its meaning or goes."""


def json_of(report: Report) -> str:
    """All figures; shares have `count`, `images`, `share` and `interval`."""
    return json.dumps(as_json(report), indent=1) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """The same as an object."""
    figures, run = report.figures, report.run
    return {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "name": run.name,
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
        "classes": [one._asdict() for one in figures.classes],
        "errors": [{"status": status, "error": error, "images": count} for status, error, count in figures.errors],
        "votes": figures.votes,
        "fragile": [
            {"margin_below": limit, "votes": count} for limit, count in zip(MARGINS, figures.fragile, strict=True)
        ],
        "sample": None if report.sample is None else _sample(report.sample),
        "fragile_images": [_image(one) for one in report.fragile],
        "sturdy_images": [_image(one) for one in report.sturdy],
        "environments": figures.environments,
        "seconds": figures.seconds,
    }


def _share(share: Share | None) -> dict[str, Any] | None:
    if share is None:
        return None
    return {"count": share.count, "images": share.images, "share": share.value, "interval": list(share.interval)}


def _sample(sample: SampleFigures) -> dict[str, Any]:
    return {
        "images": sample.images,
        "seed": sample.seed,
        "class": sample.of_class,
        "heights": list(sample.heights),
        "widths": list(sample.widths),
        "rectangles": sample.rectangles.tolist(),
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


def _image(entry: Entry) -> dict[str, Any]:
    one = entry.exhibit
    names = ("shard", "key", "label", "prediction", "largest", "top", "left", "slack", "becomes")
    shown = {name: getattr(one, name) for name in names}
    return shown | {"patch": [one.height, one.width], "picture": entry.picture.reason or "shown"}
