"""An entry of a night: what is compared, what cannot be, what its record and pages hold."""

from itertools import product
from pathlib import Path

import pytest

from tests.helpers.masked_runs import KINDS, masked_run
from tests.helpers.nights import baseline_of, complete, gates_of, made, one_shard, suite_of
from tests.pipeline.nightly.conftest import Night


def test_a_record_holds_what_the_page_needs(tmp_path: Path, run_night: Night) -> None:
    """Figures, what was lost by each measure, the images behind a gate, cost, and pages that are there."""
    suite = suite_of(tmp_path, gates={"small": gates_of({"metric": "certified", "patch": 2, "max_lost": 1})})
    run_night(suite, {"small": complete(made(tmp_path, one_shard(30)))})
    new = made(tmp_path, one_shard(5, 25), weights="1")
    _, record = run_night(suite, {"small": complete(new, adopted=3)})
    one = record.entries[0]
    assert one.figures is not None
    assert (one.run_id, one.state, one.verdict, one.figures.images) == (new.run_id, "complete", "gate tripped", 30)
    lost = {(change.measure, change.patch, change.rule): change.lost for change in one.changes}
    assert lost == {
        **{("certified", (side, side), rule): 25 for side in (1, 2) for rule in ("exact", "margin")},
        ("smoothed", None, None): 0,
        ("clean", None, None): 0,
    }
    (gate,) = one.gates
    assert (gate.passed, len(gate.images), gate.images_in_all) == (False, 20, 25)
    assert (gate.images[0].shard, gate.images[0].key) == ("a.tar", "5")
    assert (one.cost.computed, one.cost.adopted, one.cost.seconds) == (1, {"0" * 16: 3}, 2.5)
    assert one.cost.bytes == sum(file.stat().st_size for file in Path(new.url, "votes").iterdir())
    for page, text in ((one.report, "Certified"), (one.comparison, "failed: certified against 2 x 2")):
        assert page is not None
        assert text in (tmp_path / "history" / page).read_text()
    assert record.night in one.report  # type: ignore[operator]


def test_the_report_of_a_run_is_made_once(tmp_path: Path, run_night: Night) -> None:
    """A complete run does not change; if someone removed the report, it is made again."""
    suite, run = suite_of(tmp_path), made(tmp_path, one_shard(4))
    first, second = (run_night(suite, {"small": complete(run)})[1].entries[0] for _ in range(2))
    assert first.report == second.report
    assert first.comparison is None
    (tmp_path / "history" / str(first.report)).unlink()
    third = run_night(suite, {"small": complete(run)})[1].entries[0]
    assert third.report not in (None, first.report)
    assert (tmp_path / "history" / str(third.report)).exists()


def test_a_gate_may_name_a_patch_that_the_job_does_not(tmp_path: Path, run_night: Night) -> None:
    """As a rectangle; one that is larger than the image is the entry's mistake."""
    run = made(tmp_path, one_shard(9))
    wide = suite_of(tmp_path, gates={"small": gates_of({"metric": "certified", "patch": "1x3", "min": 0.5})})
    assert run_night(wide, {"small": complete(run)})[0] == 0
    larger = suite_of(tmp_path, gates={"small": gates_of({"metric": "certified", "patch": 99, "min": 0.5})})
    code, record = run_night(larger, {"small": complete(run)})
    assert (code, record.entries[0].verdict) == (2, "not compared")
    assert "99x99" in record.entries[0].sentence


def test_what_only_one_run_has_is_said(tmp_path: Path, run_night: Night) -> None:
    """A tar changed: the images of both are compared."""
    suite = suite_of(tmp_path)
    run_night(suite, {"small": complete(made(tmp_path, one_shard(9)))})
    changed = one_shard(9)["a.tar"][1:]
    changed[0] = changed[0] | {"sha256": b"9" * 32}
    _, record = run_night(suite, {"small": complete(made(tmp_path, {"a.tar": changed}, weights="1"))})
    one = record.entries[0]
    assert (one.paired, one.only_baseline, one.only_new) == (7, 2, 1)
    assert "2 images only in the baseline, 1 image only in this run" in one.sentence


def test_a_baseline_that_cannot_be_compared_is_a_wrong_request(tmp_path: Path, run_night: Night) -> None:
    """The suite allows changed images by itself, other labels only if it says so."""
    base = made(tmp_path, one_shard(3))
    relabelled = {"a.tar": [one | {"label": 1} for one in one_shard(3)["a.tar"]]}
    new = made(tmp_path, relabelled, weights="1")
    suite = suite_of(tmp_path)
    run_night(suite, {"small": complete(base)})
    code, record = run_night(suite, {"small": complete(new)})
    assert (code, record.entries[0].verdict) == (2, "not compared")
    assert record.entries[0].sentence.startswith(
        f"small: NOT COMPARED: the baseline {base.run_id} cannot be compared: the labels of 3 images differ; accept "
        f"another run, such as this one: smoothcert accept {new.url}; or add labels to `allow` of the suite; "
    )
    allowing = suite_of(tmp_path, allow=("images", "labels"))
    assert run_night(allowing, {"small": complete(new)})[0] == 0


@pytest.mark.parametrize("damage", ["gone", "run.json", "votes", "unfinished", "acceptance"])
def test_a_baseline_that_is_gone_or_damaged_is_a_wrong_request(tmp_path: Path, run_night: Night, damage: str) -> None:
    """With a remedy; the baseline does not move, and other entries are judged."""
    base, new = made(tmp_path, one_shard(3)), made(tmp_path, one_shard(3), weights="1")
    suite = suite_of(tmp_path, ("small", "other"))
    run_night(suite, {"small": complete(base), "other": complete(new)})
    path = Path(base.url)
    match damage:
        case "gone":
            path.rename(tmp_path / "elsewhere")
        case "run.json":
            (path / "run.json").write_text("{")
        case "votes":
            next((path / "votes").iterdir()).write_bytes(b"damaged")
        case "unfinished":
            (path / "_SUCCESS").unlink()
        case "acceptance":
            for file in (tmp_path / "history" / "accepted").iterdir():
                if base.run_id in file.read_text():
                    file.write_text("{")
    code, record = run_night(suite, {"small": complete(new), "other": complete(new)})
    assert (code, [one.verdict for one in record.entries]) == (2, ["not compared", "no gates"])
    assert "smoothcert accept " in record.entries[0].sentence
    assert record.entries[0].becomes is None
    if damage != "acceptance":
        assert baseline_of(suite) == base.run_id


@pytest.mark.parametrize("kind", ["square", "area", "two patches"])
def test_masks_are_judged_against_what_they_were_made_for(tmp_path: Path, run_night: Night, kind: str) -> None:
    """Squares of the job that no mask hides are left out; gates may ask for the published rule."""
    side = 3 if kind == "square" else 2
    gate = {"metric": "certified", "patch": side, "rule": "published", "min": 0.9}
    for weights, gates in (("0", {}), ("1", {"small": gates_of(gate)})):
        run = masked_run(tmp_path, KINDS[kind], count=15, weights=weights, patches=[1, 12])
        code, record = run_night(suite_of(tmp_path, gates=gates), {"small": complete(run)})
    one = record.entries[0]
    assert (code, one.verdict) == (1, "gate tripped")
    assert one.sentence.startswith(f"small: GATE TRIPPED: certified against {side} x {side} (published rule): ")
    lost = {(change.measure, change.certificate, change.patch, change.rule): change.lost for change in one.changes}
    certified = product(("recovery", "detection"), [(side, side)], ("exact", "published"))
    assert lost == {
        **{("certified", *claim): 0 for claim in certified},
        ("smoothed", None, None, None): 0,
        ("clean", None, None, None): 0,
    }
    for page in (one.report, one.comparison):
        assert page is not None
        assert (tmp_path / "history" / page).exists()
