"""Gates trip at their limit and not before it; what a gate names must exist."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.gates import Gates
from smoothcert.pipeline.compare.comparison import Comparison, compare
from smoothcert.pipeline.compare.gates import GateResults, evaluate
from tests.helpers.judged_runs import image, judged_run
from tests.pipeline.compare.conftest import CLOSE, SURE
from tests.pipeline.compare.test_comparison import clean_changed

TODAY = date(2026, 11, 27)
LOST = {"metric": "certified", "patch": 1}


@pytest.fixture(scope="module")
def five_lost(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """1,000 images; the new run lost the certificates of five, all of class 0, and one image."""
    base = [image(f"{number:03d}", [number % 4] * 12, label=number % 4) for number in range(1000)]
    new = [dict(one) for one in base]
    for number in range(0, 20, 4):
        new[number]["votes"] = CLOSE
    new[999] = image("999", None, label=3)
    return compare(
        judged_run(tmp_path_factory.mktemp("base"), {"a.tar": base}),
        judged_run(tmp_path_factory.mktemp("new"), {"a.tar": new}, weights="1"),
        patches=[(1, 1), (1, 2)],
    )


def judge(comparison: Comparison, *gates: dict[str, Any], accept: list[dict[str, Any]] | None = None) -> GateResults:
    return evaluate(comparison, Gates.model_validate({"gates": gates, "accept": accept or []}), TODAY)


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        ({**LOST, "max_lost": 5}, False),  # five and the image without votes
        ({**LOST, "max_lost": 6}, True),
        ({**LOST, "max_drop": 0.006}, True),  # as a decimal number, not as the nearest binary one
        ({**LOST, "max_drop": 0.0059}, False),
        ({**LOST, "class": 0, "max_lost": 4}, False),
        ({**LOST, "class": 0, "max_lost": 5}, True),
        ({**LOST, "class": 1, "max_lost": 0}, True),
        ({**LOST, "class": "each", "max_drop": 0.02}, True),
        ({**LOST, "class": "each", "max_drop": 0.019}, False),
        ({**LOST, "min": 0.994}, True),
        ({**LOST, "min": 0.9941}, False),
        ({"metric": "certified", "patch": "1x2", "rule": "margin", "max_lost": 6}, True),
        ({"metric": "smoothed", "max_lost": 0}, False),
        ({"metric": "smoothed", "min": 0.999}, True),
        ({"metric": "clean", "class": 3, "max_lost": 0}, True),
        ({"metric": "errors", "max": 0.001}, True),
        ({"metric": "errors", "max": 0.0009}, False),
        ({"metric": "errors", "class": 3, "max": 0.0039}, False),
    ],
)
def test_a_gate_trips_beyond_its_limit(five_lost: Comparison, gate: dict[str, Any], passed: bool) -> None:
    results = judge(five_lost, gate)
    assert results.passed == passed
    assert len(results.failures) == (0 if passed else 1)


def test_planted_losses_trip_the_gate_unless_one_is_accepted(five_lost: Comparison) -> None:
    """Five of class 0: four may be lost if one of the five is accepted."""
    gate = {**LOST, "class": 0}
    accepted = {"shard": "a.tar", "key": "008", "reason": "relabelled", "until": "2026-11-27"}
    assert not judge(five_lost, {**gate, "max_lost": 4}).passed
    assert judge(five_lost, {**gate, "max_lost": 5}).passed
    results = judge(five_lost, {**gate, "max_lost": 4}, accept=[accepted])
    assert results.passed
    assert results.accepted == ("a.tar, 008: relabelled",)
    assert judge(five_lost, {**gate, "max_drop": 0.016}, accept=[accepted]).passed
    assert not judge(five_lost, {**gate, "max_drop": 0.0159}, accept=[accepted]).passed


def test_a_failure_names_the_images_behind_it(five_lost: Comparison) -> None:
    (failure,) = judge(five_lost, {**LOST, "class": 0, "max_lost": 0}, {"metric": "errors", "max": 1.0}).failures
    assert failure.text == "class 0: certified against 1 x 1 (exact rule): 5 lost, at most 0 may be"
    assert failure.images["key"].to_pylist() == ["000", "004", "008", "012", "016"]
    (failure,) = judge(five_lost, {"metric": "errors", "max": 0.0}).failures
    assert failure.text == "errors: 0.1 % of the new run, at most 0 % is allowed"
    assert failure.images.to_pylist() == [{"shard": "a.tar", "key": "999"}]


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ({**LOST, "patch": 3, "max_lost": 1}, r"gates\[0\]: the runs were not compared for .*; add --patch 3x3"),
        ({**LOST, "class": 9, "max_lost": 1}, r"gates\[0\]: class 9 has no image in both runs"),
        ({**LOST, "class": "each", "min_images": 251, "max_lost": 1}, r"gates\[0\]: no class has 251 or more images"),
    ],
)
def test_a_gate_that_names_nothing_is_an_error(five_lost: Comparison, gate: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        judge(five_lost, gate)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": "8"}, r"accept\[0\]: a.tar, key '8' is in neither run"),
        ({"shard": "b.tar"}, r"accept\[0\]: b.tar, key '008' is in neither run"),
        ({"until": "2026-11-26"}, r"accept\[0\]: a.tar, key '008' was accepted until 2026-11-26; look at the image"),
    ],
)
def test_an_acceptance_that_names_nothing_is_an_error(
    five_lost: Comparison, changes: dict[str, str], says: str
) -> None:
    accepted = {"shard": "a.tar", "key": "008", "reason": "relabelled"} | changes
    with pytest.raises(RequestError, match=says):
        judge(five_lost, {**LOST, "max_lost": 100}, accept=[accepted])


def test_a_gate_on_labels_needs_labels(tmp_path: Path) -> None:
    images = {"shards": "unused", "label": None}
    base = judged_run(tmp_path, {"a.tar": [image("0", SURE, None)]}, images=images)
    comparison = compare(base, base, patches=[(1, 1)])
    for metric in ("smoothed", "clean"):
        with pytest.raises(RequestError, match=rf"gates\[0\]: metric {metric} needs labels"):
            judge(comparison, {"metric": metric, "min": 0.5})
    assert judge(comparison, {**LOST, "class": 0, "min": 1.0}).passed  # its class is the prediction


def test_a_drop_is_in_percentage_points(five_lost: Comparison) -> None:
    """Not in per cent of what there was."""
    (failure,) = judge(five_lost, {**LOST, "max_drop": 0.005}).failures
    assert failure.text.endswith(": the share fell by 0.6 percentage points, at most 0.5 percentage points are allowed")


def test_errors_of_a_class_need_labels(tmp_path: Path) -> None:
    """An image without votes has no prediction, so no class would ever have an error."""
    images = {"shards": "unused", "label": None}
    base = judged_run(tmp_path / "base", {"a.tar": [image(key, SURE, None) for key in "01"]}, images=images)
    then = {"a.tar": [image("0", SURE, None), image("1", None, None)]}
    new = judged_run(tmp_path / "new", then, weights="1", images=images)
    comparison = compare(base, new, patches=[(1, 1)])
    for number in (0, "each"):
        with pytest.raises(RequestError, match=r"gates\[0\]: metric errors has no classes in runs without labels"):
            judge(comparison, {"metric": "errors", "class": number, "max": 0.0})
    assert not judge(comparison, {"metric": "errors", "max": 0.0}).passed


def test_a_failure_that_misses_by_one_image_of_a_million_shows_it(tmp_path: Path) -> None:
    """A share just below its limit is not rounded to it."""
    run = judged_run(tmp_path, {"a.tar": [image("0", SURE), image("1", None)]})
    comparison = compare(run, run, patches=[(1, 1)])
    many = comparison.pairs.images.take([0] * 599_999 + [1] * 400_001)
    comparison = replace(comparison, pairs=replace(comparison.pairs, images=many))
    (failure,) = judge(comparison, {"metric": "smoothed", "min": 0.6}).failures
    assert failure.text == "smoothed: 59.9999 % of the new run, at least 60 % is asked for"


def test_changes_within_the_tolerance_trip_no_gate(tmp_path: Path) -> None:
    """Another device is no regression."""
    base = judged_run(tmp_path / "base", {"a.tar": [image("0", SURE, margins=[0.1] * 12)]})
    new = judged_run(tmp_path / "new", {"a.tar": [image("0", CLOSE, margins=[0.1] * 12)]}, weights="1")
    gates = [{**LOST, "max_lost": 0}, {**LOST, "max_drop": 0.0}]
    assert judge(compare(base, new, patches=[(1, 1)], tolerance=0.2), *gates).passed
    assert len(judge(compare(base, new, patches=[(1, 1)]), *gates).failures) == 2


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        ({"certificate": "detection", "max_lost": 2}, True),
        ({"certificate": "detection", "max_lost": 1}, False),
        ({"certificate": "detection", "rule": "published", "min": 0.8}, False),
        ({"rule": "published", "max_lost": 1}, True),
        ({"rule": "published", "max_lost": 0}, False),
    ],
)
def test_gates_ask_for_the_certificates_of_masks(tmp_path: Path, gate: dict[str, Any], passed: bool) -> None:
    """Two images lose detection beyond the tolerance, four of six keep it; one loses recovery."""
    comparison = compare(*clean_changed(tmp_path), tolerance=0.6)
    assert judge(comparison, {"metric": "certified", "patch": 3, **gate}).passed == passed


def test_a_gate_on_detection_needs_masks(five_lost: Comparison) -> None:
    with pytest.raises(
        RequestError, match=r"gates\[0\]: the runs were not compared for detection against patches of 1 x 1"
    ):
        judge(five_lost, {**LOST, "certificate": "detection", "max_lost": 0})
