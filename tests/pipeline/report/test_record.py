"""The JSON of a report."""

import json
from pathlib import Path

from smoothcert.pipeline.report.record import KEYS, as_json, headline_as_json, json_of
from smoothcert.pipeline.report.report import report_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.masked_runs import KINDS, masked_run
from tests.helpers.studies import attack


def test_json_holds_all_figures(finished: Path) -> None:
    """Shares with counts and intervals, by patch and rule; the sample with its seed; images without their pixels."""
    report = report_of(open_run(str(finished)), side=2, sample=5, seed=3, exhibits=2)
    content = json.loads(json_of(report))
    assert content == json.loads(json.dumps(as_json(report)))
    assert content["schema"] == 3
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
    assert (content["brackets"], content["fallen_images"]) == ([], [])
    assert sum(error["images"] for error in content["errors"]) == content["images"] - content["status"]["ok"]


def test_json_holds_brackets_and_what_fell(tmp_path: Path) -> None:
    """The headline has the bracket of its patch, or null."""
    run = judged_run(tmp_path, {"a.tar": [image("0", [0] * 7 + [1] * 5), image("1", [0] * 12)]})
    study = attack(run, {"0": True}, (1, 1))
    content = json.loads(json_of(report_of(run, side=1)))
    (bracket,) = content["brackets"]
    assert (bracket["patch"], bracket["attacked"], bracket["fell"]) == ([1, 1], 1, 1)
    assert bracket["studies"] == [study.record.study_id]
    (one,) = content["fallen_images"]
    assert one.pop("picture").startswith("its tar is out of reach")
    expected = {"shard": "a.tar", "key": "0", "label": 0, "prediction": 0, "becomes": 1, "slack": -3}
    assert one == expected | {"attack": "apgd-ce", "patch": [1, 1], "top": 1, "left": 2}
    assert headline_as_json(report_of(run, side=1))["bracket"] == bracket
    assert headline_as_json(report_of(run, side=2))["bracket"] is None


def test_json_of_masks_holds_their_threat_and_detection(tmp_path: Path) -> None:
    """Rectangles that no mask hides are null; columns, rows and blocks have neither."""
    report = report_of(masked_run(tmp_path / "masks", KINDS["area"], count=12))
    content = json.loads(json_of(report))
    figures = report.figures
    assert figures.detection is not None
    assert content["own_threat"]["threat"] == {"pixels": 6}
    assert {
        (certificate, rule): content["own_threat"][certificate][rule]["count"]
        for certificate in ("recovery", "detection")
        for rule in ("exact", "published")
    } == {
        (certificate, rule): share.count
        for certificate, shares in figures.own_threat.items()
        for rule, share in shares.items()
    }
    assert list(content["own_threat"]) == ["threat", "patches", "recovery", "detection"]
    assert [one["count"] for one in content["detection"]["certified"]] == [
        share.count for share in figures.detection.certified
    ]
    assert content["detection"]["false_alarms"]["count"] == figures.detection.false_alarms.count
    assert None in content["sample"]["rectangles"][-1]
    assert content["sample"]["two_patches"] == []
    assert headline_as_json(report)["detection"] == content["detection"]
    other = as_json(report_of(judged_run(tmp_path / "columns", {"a.tar": [image("0", [0] * 12)]})))
    assert (other["own_threat"], other["detection"]) == (None, None)
