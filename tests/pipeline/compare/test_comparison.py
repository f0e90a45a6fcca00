"""The figures of a comparison: by hand, by plain pandas over the files, and mirrored with the sides swapped."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.compare.comparison import Changed, ClassChange, Comparison, changes_of, compare
from smoothcert.pipeline.compare.losses import losses_of
from smoothcert.pipeline.compare.pairs import GAINED, LOST
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.compare.record import as_json
from smoothcert.pipeline.compare.verdict import image_tables, notices_of
from smoothcert.pipeline.statistics import difference_interval, mcnemar
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.run import Run, open_run
from smoothcert.workers.storage.store import sha256_of
from tests.helpers import jobs
from tests.helpers.judged_runs import CLASSES, image, judged_run
from tests.helpers.masked_runs import KINDS, MASKS, ByHand, masked_run, row_list
from tests.pipeline.compare.conftest import CLOSE, SURE, TwoRuns

ALLOWED = [Reason.images]


def test_what_was_lost_and_gained_is_counted(two_runs: TwoRuns) -> None:
    """Of seven pairs; one loss is within the tolerance, and one image changed its class and kept its certificate."""
    found = compare(*two_runs, patches=[(2, 2)], tolerance=0.6, allow=ALLOWED)
    exact = found.certified[0]
    assert (exact.base, exact.new) == (5, 3)
    assert (exact.lost, exact.gained, exact.lost_within_tolerance, exact.gained_within_tolerance) == (2, 1, 1, 0)
    assert exact.kept_other_class == 1
    assert exact.difference == (3 - 5) / 7
    assert (exact.p_value, exact.interval) == (mcnemar(2, 1), difference_interval(3, 1, 7))
    assert found.predictions == Changed(beyond=1, within=0)
    assert found.clean_predictions == Changed(beyond=1, within=0)
    assert found.votes == Changed(beyond=5 + 5 + 12, within=5)
    assert found.clean is not None
    assert (found.clean.lost, found.clean.gained) == (2, 0)  # one changed its class, one has no votes
    assert found.classes == (ClassChange(0, 6, 2, 1, 1.0), ClassChange(2, 1, 0, 0, 1.0))
    assert (found.paired, found.itself, found.complete) == (7, False, (True, True))
    assert found.differences == ("images.shards", "model.checkpoint_sha256")
    assert list(found.allowed) == [Reason.images]


def test_swapped_sides_give_the_mirror(two_runs: TwoRuns) -> None:
    there = compare(*two_runs, patches=[(2, 2)], allow=ALLOWED)
    back = compare(*reversed(two_runs), patches=[(2, 2)], allow=ALLOWED)
    for one, other in zip(
        [there.clean, there.smoothed, *there.certified], [back.clean, back.smoothed, *back.certified], strict=True
    ):
        assert one is not None
        assert other is not None
        assert (one.base, one.new, one.lost, one.gained) == (other.new, other.base, other.gained, other.lost)
        assert one.p_value == other.p_value
        assert one.difference == -other.difference
        assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]), abs=1e-9)
    assert (there.predictions, there.votes) == (back.predictions, back.votes)


def test_a_run_and_its_repeat_do_not_differ(two_runs: TwoRuns) -> None:
    found = compare(two_runs.base, two_runs.base, patches=[(1, 1), (3, 4)])
    assert found.itself
    assert all((one.lost, one.gained, one.kept_other_class, one.p_value) == (0, 0, 0, 1.0) for one in found.certified)
    assert (found.predictions, found.votes) == (Changed(0, 0), Changed(0, 0))


@pytest.fixture
def perturbed(tmp_path: Path) -> tuple[Run, Run]:
    """A real run, and one with a single weight of its network changed."""
    jobs.write_shards(tmp_path, shards=2, images=40)
    base = certified(tmp_path)
    weights = torch.load(tmp_path / "weights.pt")
    weights["head.bias"][1] += 0.3
    torch.save(weights, tmp_path / "weights.pt")
    return base, certified(tmp_path)


def certified(folder: Path) -> Run:
    plan = make_plan(load_job(jobs.write_job(folder, patches=[1, 2, 3])))
    begin(plan)
    certifier = plan.certifier(threads=1)
    for task in plan.todo:
        assert list(certifier.certify(task))
    path = Path(plan.run.url)
    files = {f"votes/{file.name}": sha256_of(file) for file in (path / "votes").iterdir()}
    (path / "_SUCCESS").write_text(json.dumps({"files": files, "rows": 80}))
    return open_run(plan.run.url)


def frame_of(run: Run) -> pd.DataFrame:
    files = sorted(Path(run.url, "votes").iterdir())
    return pd.concat([pq.read_table(file).to_pandas() for file in files]).set_index(["shard", "key"])


def test_plain_pandas_lists_the_same_losses_after_one_weight_changed(perturbed: tuple[Run, Run]) -> None:
    """Image by image, for squares by the stored columns; changed votes are counted one by one."""
    found = compare(*perturbed)
    base, new = map(frame_of, perturbed)
    both = base.add_suffix("_base").join(new.add_suffix("_new"))
    changed = 0
    for side in (1, 2, 3):
        for rule, column in (("exact", "max_certified_patch"), ("margin", "max_margin_certified_patch")):
            held = {
                run: (both[f"{column}_{run}"] >= side) & (both[f"prediction_{run}"] == both[f"label_{run}"])
                for run in ("base", "new")
            }
            (change,) = [one for one in found.certified if (one.measure.size, one.measure.rule) == ((side, side), rule)]
            for name, expected in ((LOST, held["base"] & ~held["new"]), (GAINED, held["new"] & ~held["base"])):
                rows = changes_of(found.pairs, change.measure, name)
                listed = list(zip(rows["shard"].to_pylist(), rows["key"].to_pylist(), strict=True))
                assert sorted(listed) == sorted(both.index[expected])
                assert getattr(change, name) == expected.sum()
                changed += len(listed)
    assert changed  # else nothing was tried
    votes = sum((one != other).sum() for one, other in zip(both.votes_base, both.votes_new, strict=True))
    assert found.votes == Changed(votes, 0)
    assert found.predictions.beyond == (both.prediction_base != both.prediction_new).sum()


@pytest.mark.parametrize(
    ("changes", "allow", "says"),
    [
        ({"images": {"shards": "unused", "version": "2"}}, [], "the runs differ in images.version"),
        ({"preprocess": {"resize": 13, "crop": 12}}, [Reason.images], "the runs differ in preprocess.resize"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    tmp_path: Path, changes: dict[str, Any], allow: Sequence[Reason], says: str
) -> None:
    """The reason is named, and how to allow it."""
    shards = {"a.tar": [image("0", SURE)]}
    base, new = judged_run(tmp_path / "base", shards), judged_run(tmp_path / "new", shards, **changes)
    with pytest.raises(RequestError, match=rf"cannot be compared: {says}; .*: --allow (images|preprocessing)$"):
        compare(base, new, allow=allow)
    found = compare(base, new, allow=[Reason.images, Reason.preprocessing])
    assert list(found.allowed.values()) == [says]


def test_labels_that_changed_are_a_reason(tmp_path: Path) -> None:
    """Though the identities say nothing about them."""
    base = judged_run(tmp_path / "base", {"a.tar": [image("0", SURE), image("1", SURE)]})
    new = judged_run(tmp_path / "new", {"a.tar": [image("0", SURE, label=1), image("1", SURE)]})
    with pytest.raises(RequestError, match=r"the labels of 1 image differ; .* --allow labels$"):
        compare(base, new)
    (change,) = compare(base, new, patches=[(1, 1)], allow=[Reason.labels]).certified[:1]
    assert (change.base, change.new, change.lost) == (2, 1, 1)


def test_a_label_that_changed_is_no_rounding(tmp_path: Path) -> None:
    """Though votes of tiny margins changed, too."""
    margins = [0.1] * 12
    base = judged_run(tmp_path / "base", {"a.tar": [image("0", SURE, margins=margins, clean_margin=0.1)]})
    then = image("0", [0] * 11 + [1], label=1, margins=margins, clean_prediction=2, clean_margin=0.1)
    new = judged_run(tmp_path / "new", {"a.tar": [then]}, weights="1")
    found = compare(base, new, patches=[(1, 1)], tolerance=0.2, allow=[Reason.labels])
    assert (found.certified[0].lost, found.certified[0].lost_within_tolerance) == (1, 0)
    assert found.clean is not None
    assert (found.clean.lost, found.clean.lost_within_tolerance) == (1, 0)


def test_labels_of_one_run_alone_are_not_labels_that_changed(tmp_path: Path) -> None:
    base = judged_run(tmp_path / "base", {"a.tar": [image("0", SURE)]})
    images = {"shards": "unused", "label": None}
    new = judged_run(tmp_path / "new", {"a.tar": [image("0", SURE, None)]}, images=images)
    found = compare(base, new, patches=[(1, 1)], allow=[Reason.labels])
    assert found.allowed == {Reason.labels: "the runs differ in images.label"}


def test_tars_that_changed_are_a_reason(tmp_path: Path) -> None:
    """Though names and sizes are the same: else one pair could stand for a thousand images."""
    base = judged_run(tmp_path / "base", {"a.tar": [image(key, SURE) for key in "012"]})
    changed = [image("0", SURE), *(image(key, CLOSE, sha256=b"9" * 32) for key in "12")]
    new = judged_run(tmp_path / "new", {"a.tar": changed}, weights="1")
    says = r"both runs have the shards of 4 images that only one has .*; .* --allow images$"
    with pytest.raises(RequestError, match=says):
        compare(base, new)
    assert compare(base, new, patches=[(1, 1)], allow=[Reason.images]).paired == 1


def test_shards_that_an_unfinished_run_lacks_are_no_other_images(tmp_path: Path) -> None:
    shards = {"a.tar": [image("0", SURE)], "b.tar": [image("1", SURE)]}
    base = judged_run(tmp_path / "base", shards)
    new = judged_run(tmp_path / "new", shards, weights="1", finished=False)
    Path(new.url, "votes", "00001-b.parquet").unlink()
    found = compare(base, new, patches=[(1, 1)], allow=[Reason.unfinished])
    assert list(found.allowed) == [Reason.unfinished]
    assert len(found.pairs.only_base) == 1


def test_runs_without_a_common_image_are_refused(tmp_path: Path) -> None:
    """Whatever is allowed."""
    base = judged_run(tmp_path / "base", {"a.tar": [image("0", SURE)]})
    new = judged_run(tmp_path / "new", {"b.tar": [image("0", SURE)]})
    with pytest.raises(RequestError, match="have no image in common"):
        compare(base, new, allow=list(Reason))


def test_without_labels_certificates_are_compared_whatever_the_class(tmp_path: Path) -> None:
    """The class of an image is then the prediction of the base."""
    images = {"shards": "unused", "label": None}
    then = {"a.tar": [image("0", SURE, None), image("1", [2] * 12, None)]}
    now = {"a.tar": [image("0", CLOSE, None), image("1", [3] * 12, None)]}
    base = judged_run(tmp_path / "base", then, images=images)
    new = judged_run(tmp_path / "new", now, weights="1", images=images)
    found = compare(base, new, patches=[(1, 1)])
    assert (found.clean, found.smoothed) == (None, None)
    assert (found.certified[0].lost, found.certified[0].kept_other_class) == (1, 1)
    assert found.classes == (ClassChange(0, 1, 1, 0, 1.0), ClassChange(2, 1, 0, 0, 1.0))


def test_other_ablations_are_compared_by_certificates_alone(tmp_path: Path) -> None:
    """Votes of other ablations cannot be compared one by one."""
    shards = {"a.tar": [image("0", SURE)]}
    base = judged_run(tmp_path / "base", shards)
    new = judged_run(tmp_path / "new", shards, ablation={"kind": "row", "size": 3})
    found: Comparison = compare(base, new, patches=[(1, 2)])
    assert found.votes is None
    assert found.pairs.images["votes_changed"].to_pylist() == [None]
    assert (found.certified[0].base, found.certified[0].new) == (1, 1)


def test_a_patch_must_fit_the_image(two_runs: TwoRuns) -> None:
    with pytest.raises(RequestError, match=r"--patch 13x2: must be 1x1 to 12x12"):
        compare(*two_runs, patches=[(13, 2)], allow=ALLOWED)


def test_frames_of_other_sizes_are_compared_for_the_patches_that_fit_both(tmp_path: Path) -> None:
    """The reason for the refusal is the frame, not a patch that nobody asked for."""
    shards = {"a.tar": [image("0", SURE)]}
    base = judged_run(tmp_path / "base", shards)
    wide = {"preprocess": {"resize": None, "crop": 24}, "ablation": {"kind": "column", "size": 3, "stride": 2}}
    new = judged_run(tmp_path / "new", shards, **wide, patches=[2, 20])
    with pytest.raises(RequestError, match="the certified frame is 12 x 12 pixels in"):
        compare(base, new)
    found = compare(base, new, allow=[Reason.preprocessing, Reason.threat])
    assert [change.measure.size for change in found.certified] == [(1, 1)] * 2 + [(2, 2)] * 2


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_number(two_runs: TwoRuns, tolerance: float) -> None:
    """JSON has no infinity."""
    with pytest.raises(RequestError, match=r"--tolerance (-1\.0|nan|inf): must be a finite number from 0 on"):
        compare(*two_runs, tolerance=tolerance, allow=ALLOWED)


def test_runs_may_be_paths_and_a_patch_may_stand_alone(two_runs):
    """What is neither, or no number, is a line."""
    base, new = two_runs
    found = compare(base.url, new.url, patches=2, allow=ALLOWED)
    assert found.certified == compare(base, new, patches=[2], allow=ALLOWED).certified
    with pytest.raises(RequestError, match=r"^run: expected a Run, or its path or URL, not NoneType$"):
        compare(base, None)
    with pytest.raises(RequestError, match=r"^--tolerance '0': must be a number$"):
        compare(base, new, tolerance="0")


def masks_and_columns(folder: Path, ablation: dict[str, Any] = MASKS) -> tuple[Run, Run]:
    """The same images by masks and by columns, on which votes are for the label or for the next class."""
    base = masked_run(folder / "masks", ablation)
    shards: dict[str, list[dict[str, Any]]] = {}
    for place, one in enumerate(row_list(base)):
        votes = [one["label"]] * 12 if place % 3 else [one["label"]] * 7 + [(one["label"] + 1) % CLASSES] * 5
        shards.setdefault(one["shard"], []).append(image(one["key"], votes, one["label"], sha256=one["sha256"]))
    return base, judged_run(folder / "columns", shards, weights="1")


def test_masks_and_columns_are_compared_image_by_image(tmp_path: Path) -> None:
    """If the reader allows it; by the exact rule, against the patches that both jobs are about and both answer for."""
    base, new = masks_and_columns(tmp_path)
    with pytest.raises(RequestError, match=r"certifies by masks against 3 x 3, .* --allow threat"):
        compare(base, new)
    found = compare(base, new, allow=[Reason.threat])
    assert [(*one.measure.size, one.measure.rule) for one in found.certified] == [
        (3, 3, "exact"),
        (1, 1, "exact"),
        (2, 2, "exact"),
    ]
    hand, before, after = ByHand(MASKS), row_list(base), row_list(new)
    assert [row["key"] for row in before] == [row["key"] for row in after]
    assert found.paired == len(before)
    for change in found.certified:
        threat = change.measure.threat
        one = [row["prediction"] == row["label"] and hand.recovers(row, threat) for row in before]
        other = [row["prediction"] == row["label"] and row["max_certified_patch"] >= threat.height for row in after]
        lost, gained = (
            sum(first and not second for first, second in zip(*sides, strict=True))
            for sides in ((one, other), (other, one))
        )
        assert (change.base, change.new, change.lost, change.gained) == (sum(one), sum(other), lost, gained)
        assert min(lost, gained) > 0
        assert (change.p_value, change.interval) == (
            mcnemar(lost, gained),
            difference_interval(lost, gained, len(before)),
        )
    changes = changes_of(found.pairs, found.certified[0].measure, LOST).to_pylist()
    assert all(row["base_slack"] >= 0 for row in changes)
    assert all(row["new_slack"] < 0 or row["new_prediction"] != row["label"] for row in changes)
    assert found.votes is None  # they are of other ablations


def test_a_comparison_without_certificates_says_so(tmp_path: Path) -> None:
    """Masks for a flat and for a high patch answer for no patch that both jobs are about."""
    runs = [masked_run(tmp_path / text, {**MASKS, "threat": text}) for text in ("1x5", "5x1")]
    found = compare(*runs, allow=[Reason.threat])
    assert not found.certified
    assert any(line.startswith("no certificate is compared") for line in notices_of(found))
    assert compare(*runs, patches=1, allow=[Reason.threat]).certified


@pytest.mark.parametrize("kind", ["area", "two patches"])
def test_the_same_two_patches_or_area_are_compared_image_by_image(tmp_path: Path, kind: str) -> None:
    """By both certificates and rules, as the stored columns say; the rows that changed name the threat."""
    ablation = KINDS[kind]
    base, new = masked_run(tmp_path / "base", ablation), masked_run(tmp_path / "new", ablation, weights="1", seed=1)
    found = compare(base, new, allow=[Reason.labels])
    own = [one for one in found.certified if (one.measure.size, one.measure.patches) not in {((2, 2), 1), ((1, 1), 1)}]
    text = "rectangles of up to 6 pixels" if kind == "area" else "2 patches of 2 x 2"
    assert [one.measure.text for one in own] == [
        f"{certified} against {text} ({rule} rule)"
        for certified in ("certified", "certified for detection")
        for rule in ("exact", "published")
    ]
    assert found.certified[0].measure.size == (2, 2)
    sides = [row_list(run) for run in (base, new)]
    hand, threats = ByHand(ablation), [Threat(2, 2, 2)]
    if kind == "area":
        threats = [Threat(tall, wide) for tall in range(1, 7) for wide in range(1, 7) if tall * wide <= 6]
    holds = (
        lambda row: hand.recovers(row, *threats),
        hand.all_agree,
        lambda row: hand.detects(row, *threats),
        hand.all_comply,
    )
    for change, held in zip(own, holds, strict=True):
        of = change.measure.of
        one, other = ([row[of] == row["label"] and held(row) for row in rows] for rows in sides)
        lost = sum(first and not second for first, second in zip(one, other, strict=True))
        gained = sum(second and not first for first, second in zip(one, other, strict=True))
        assert (change.base, change.new, change.lost, change.gained) == (sum(one), sum(other), lost, gained)
        rows = changes_of(found.pairs, change.measure, LOST).to_pylist()
        assert len(rows) == lost > 0
        assert {row["patches"] for row in rows} == {change.measure.patches}
        assert {row["top"] for row in rows} == {None}
    assert not [line for line in notices_of(found) if "is in its report" in line]
    assert any(row["patch"] == text for _, rows in image_tables(found) for row in rows)
    assert all(loss.base.height == 2 for loss in losses_of(found, 100))
    assert {one["patches"] for one in as_json(found)["certified"]} == ({1, 2} if kind == "two patches" else {1})


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    """Another number of patches, or squares that were asked for: certificates against two patches are in the report."""
    run, one = masked_run(tmp_path, KINDS["two patches"]), masked_run(tmp_path / "one", {**MASKS, "threat": 2})
    for found in (compare(run, run, patches=2), compare(run, one, allow=[Reason.threat, Reason.labels])):
        said = [line for line in notices_of(found) if "against 2 patches of 2 x 2 is in its report" in line]
        assert len(said) == 1


@pytest.mark.parametrize("of_masks", ["base", "new"])
def test_masks_and_columns_need_not_have_the_same_shards(tmp_path: Path, of_masks: str) -> None:
    """Images that one run has alone are counted as such, whichever it is."""
    masks, columns = masks_and_columns(tmp_path)
    run = Path((masks if of_masks == "base" else columns).url)
    lost = sorted((run / "votes").iterdir())[0]
    alone = pq.read_table(lost).num_rows
    lost.unlink()
    (run / "_SUCCESS").unlink()
    pair = (masks, columns) if of_masks == "base" else (columns, masks)
    found = compare(*(open_run(one.url) for one in pair), allow=[Reason.threat, Reason.unfinished])
    assert {len(found.pairs.only_base), len(found.pairs.only_new)} == {0, alone}
    assert found.paired > 0


def test_two_runs_of_masks_are_compared_by_both_rules(tmp_path: Path) -> None:
    """Against their threat; those for another threat only if the reader allows it."""
    runs = [masked_run(tmp_path / fill, {**MASKS, "fill": fill}) for fill in ("black", "mean")]
    found = compare(*runs)
    assert [(one.measure.column, one.lost, one.gained) for one in found.certified] == [
        ("certified_3x3_exact", 0, 0),
        ("certified_3x3_published", 0, 0),
        ("detection_3x3_exact", 0, 0),
        ("detection_3x3_published", 0, 0),
    ]
    assert found.differences == ("ablation.fill",)
    other = masked_run(tmp_path / "other", {**MASKS, "threat": 2})
    with pytest.raises(RequestError, match="certifies by masks against 2 x 2"):
        compare(runs[0], other)
    assert {one.measure.patch[0] for one in compare(runs[0], other, allow=[Reason.threat]).certified} == {2}


def test_a_patch_that_masks_do_not_hide_is_refused(tmp_path: Path) -> None:
    base, new = masks_and_columns(tmp_path)
    with pytest.raises(RequestError, match="patch 4 x 4: no mask hides it"):
        compare(base, new, patches=[4], allow=[Reason.threat])


def test_masks_of_an_area_and_of_two_patches_are_compared_with_columns(tmp_path: Path) -> None:
    for kind in ("area", "two patches", "rectangle"):
        base, new = masks_and_columns(tmp_path / kind, KINDS[kind])
        sizes = {one.measure.threat[:2] for one in compare(base, new, allow=[Reason.threat]).certified}
        assert sizes == {(1, 1), (2, 2)} | ({(2, 5)} if kind == "rectangle" else set())


def test_votes_that_one_run_left_out_are_no_change(tmp_path: Path) -> None:
    """What `early_exit` leaves out follows from the votes that were cast."""
    early = {**MASKS, "early_exit": True}
    votes = [0] * 45
    skipped = [0, 1, *[0] * 7, 0, *[-1] * 35]
    base = judged_run(tmp_path / "base", {"a.tar": [image("0", votes)]}, ablation=early)
    new = judged_run(tmp_path / "new", {"a.tar": [image("0", skipped)]}, ablation=early, weights="1")
    assert compare(base, new).votes == Changed(beyond=1, within=0)


def clean_changed(folder: Path) -> tuple[Run, Run]:
    """Masks that all show class 0, and six images of the label 0: by the class of the whole image, and its margin."""
    base = [0, 0, 0, 1, 0, 0]
    new = [(0, 1.0), (1, 1.0), (1, 0.5), (0, 1.0), (0, 1.0), (0, 1.0)]
    runs = []
    for name, whole in (("base", [(one, 0.5) for one in base]), ("new", new)):
        images = [
            image(str(place), [0] * 45, 0, clean_prediction=clean, clean_margin=margin)
            for place, (clean, margin) in enumerate(whole)
        ]
        if name == "new":
            images[4]["votes"] = [0] * 8 + [1] + [0] * 36  # a mask that differs: an alarm without an attack
        runs.append(judged_run(folder / name, {"a.tar": images}, ablation=MASKS, weights=str(len(runs))))
    return runs[0], runs[1]


def test_detection_is_compared_by_the_class_of_the_whole_image(tmp_path: Path) -> None:
    """A change that only the clean prediction explains is within the tolerance if its margins are."""
    runs = clean_changed(tmp_path)
    found = {one.measure.column: one for one in compare(*runs, tolerance=0.6).certified}
    assert list(found) == [
        "certified_3x3_exact",
        "certified_3x3_published",
        "detection_3x3_exact",
        "detection_3x3_published",
    ]
    exact, published = found["detection_3x3_exact"], found["detection_3x3_published"]
    assert exact.measure.text == "certified for detection against 3 x 3 (exact rule)"
    assert (exact.base, exact.lost, exact.lost_within_tolerance, exact.gained) == (5, 2, 1, 1)
    assert (published.base, published.lost, published.lost_within_tolerance, published.gained) == (5, 2, 1, 1)
    changes = changes_of(compare(*runs).pairs, exact.measure, LOST).sort_by("key").to_pylist()
    assert [(row["key"], row["certificate"], row["base_prediction"], row["new_prediction"]) for row in changes] == [
        ("1", "detection", 0, 1),
        ("2", "detection", 0, 1),
        ("4", "detection", 0, 0),
    ]
    assert all(row["base_slack"] >= 0 > row["new_slack"] for row in changes if row["key"] != "4")
