"""The JSON of a report."""

import json
from pathlib import Path

from smoothcert.pipeline.report.record import KEYS, as_json, json_of
from smoothcert.pipeline.report.report import report_of
from smoothcert.workers.runs.run import open_run


def test_json_holds_all_figures(finished: Path) -> None:
    """Shares with counts and intervals, by patch and rule; the sample with its seed; images without their pixels."""
    report = report_of(open_run(str(finished)), side=2, sample=5, seed=3, exhibits=2)
    content = json.loads(json_of(report))
    assert content == json.loads(json.dumps(as_json(report)))
    assert content["schema"] == 2
    assert list(content) == list(KEYS)
    assert content["run_id"] == finished.name
    exact = [one for one in content["certified"] if one["rule"] == "exact"]
    assert [one["patch"] for one in exact] == [[side, side] for side in range(1, 17)]
    assert exact[1]["count"] == report.figures.certified["exact"][1].count
    low, high = exact[1]["interval"]
    assert low <= exact[1]["share"] <= high
    assert (content["sample"]["images"], content["sample"]["seed"]) == (5, 3)
    assert len(content["fragile_images"]) == 2
    assert content["fragile_images"][0]["picture"] == "shown"
    assert sum(error["images"] for error in content["errors"]) == content["images"] - content["status"]["ok"]
