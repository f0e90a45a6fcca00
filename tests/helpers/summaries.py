"""A summary of a run to start from: all is well."""

from smoothcert.pipeline.overview.summary import Summary
from smoothcert.workers.tars.label_counts import LabelCounts
from smoothcert.workers.tars.tar_headers import LeftOut

SUMMARY = Summary(
    images=100,
    status={"ok": 100},
    labelled=True,
    labels=LabelCounts(images=100, usable=100),
    clean_accuracy=None,
    smoothed_accuracy=None,
    certified=(),
    without_votes=0,
    first_without_votes=None,
    files={},
    environments={"one": 2},
    rotated=0,
    left_out=LeftOut(),
    adopted_from={},
)
