"""The figures of all images equal those that plain pandas counts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.ablation import Area
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.pipeline.report import figures
from smoothcert.pipeline.report.figures import MARGINS, Figures, Share, Sums, columns_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers.judged_runs import CLASSES, CROP, image, judged_run
from tests.helpers.masked_runs import KINDS, MASKS, ByHand, masked_run, row_list


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two shards of images with random votes, some without votes, some without a label."""
    random = np.random.default_rng(0)

    def one(number: int) -> dict:
        leader, others = number % CLASSES, random.integers(0, CLASSES, 12)
        votes = np.where(random.random(12) < 0.7, leader, others).tolist()
        made = image(f"{number:03d}", votes, label=int(random.integers(0, CLASSES)) if number % 3 else leader)
        made |= {"margins": random.random(12) ** 4, "clean_prediction": int(random.integers(0, CLASSES))}
        if number % 17 == 5:
            made |= {"votes": None}
        if number % 19 == 7:
            made |= {"label": None, "status": "label_error", "error": f"label {number % 2} is no number"}
        return made

    return judged_run(tmp_path, {"a.tar": [one(n) for n in range(60)], "b.tar": [one(n) for n in range(60, 100)]})


def figures_of(run: Run, side: int = 2) -> Figures:
    sums = Sums(run.job, side)
    for file in read_published(run, columns_of(run.job)):
        sums.add(file, Rows(file.rows, run.job))
    return sums.figures()


def frame_of(run: Run) -> pd.DataFrame:
    return pd.concat([pq.read_table(file).to_pandas() for file in sorted(Path(run.url, "votes").iterdir())])


def test_shares_are_those_of_pandas(run: Run) -> None:
    figures, frame = figures_of(run), frame_of(run)
    assert figures.images == len(frame) == 100
    assert figures.clean == Share(int((frame.clean_prediction == frame.label).sum()), 100)
    assert figures.smoothed == Share(int((frame.prediction == frame.label).sum()), 100)
    for rule, column in (("exact", "max_certified_patch"), ("margin", "max_margin_certified_patch")):
        right = frame.prediction == frame.label
        counts = [int((right & (frame[column] >= side)).sum()) for side in range(1, CROP + 1)]
        assert figures.certified[rule] == tuple(Share(count, 100) for count in counts)
    assert figures.status == frame.status.value_counts().to_dict()


def test_classes_are_those_of_pandas(run: Run) -> None:
    """With the class that wrong predictions fall to most often, the lowest of equals."""
    frame = frame_of(run)
    for one in figures_of(run).classes:
        own = frame[frame.label == one.number]
        right = own.prediction == own.label
        assert one.images == len(own)
        assert (one.clean, one.smoothed) == ((own.clean_prediction == own.label).sum(), right.sum())
        assert one.certified == (right & (own.max_certified_patch >= 2)).sum()
        wrong = own[~right & own.prediction.notna()].prediction.astype(int).value_counts()
        assert (one.fallen, one.falls_to) == (wrong.max(), min(wrong[wrong == wrong.max()].index))
    assert [one.number for one in figures_of(run).classes] == sorted(frame.label.dropna().unique())


def test_errors_are_counted_by_reason_the_most_frequent_first(run: Run) -> None:
    figures, frame = figures_of(run), frame_of(run)
    failed = frame[frame.status != "ok"]
    assert sum(count for _, _, count in figures.errors) == len(failed)
    assert {(status, error): count for status, error, count in figures.errors} == failed.groupby(
        ["status", "error"], observed=True
    ).size().to_dict()
    counts = [count for _, _, count in figures.errors]
    assert counts == sorted(counts, reverse=True)


def test_very_many_reasons_are_counted_together(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No image is lost."""
    monkeypatch.setattr(figures, "MAX_REASONS", 1)
    found = figures_of(run)
    assert figures.FURTHER_REASONS in {error for _, error, _ in found.errors}
    assert len(found.errors) <= 3
    assert sum(count for _, _, count in found.errors) == 100 - found.status["ok"]


def test_fragile_votes_are_counted_by_margin(run: Run) -> None:
    margins = np.stack(frame_of(run).margins.dropna())
    figures = figures_of(run)
    assert figures.votes == margins.size
    assert figures.fragile == tuple(int((margins < np.float32(limit)).sum()) for limit in MARGINS)


def test_an_interval_holds_its_share() -> None:
    share = Share(3, 10)
    assert share.value == 0.3
    assert share.interval[0] < 0.3 < share.interval[1]
    assert Share(0, 0).interval == (0.0, 1.0)


def test_without_labels_a_class_is_a_prediction(finished_blocks: Path) -> None:
    """And certificates count whatever the class."""
    run = open_run(str(finished_blocks))
    figures, frame = figures_of(run, 1), frame_of(run)
    assert (figures.clean, figures.smoothed) == (None, None)
    assert figures.certified["exact"][0].count == (frame.max_certified_patch >= 1).sum()
    assert {one.number: one.images for one in figures.classes} == frame.prediction.dropna().value_counts().to_dict()
    assert all((one.clean, one.smoothed, one.falls_to) == (None, None, None) for one in figures.classes)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_masks_are_those_by_hand(tmp_path: Path, kind: str) -> None:
    """Recovery and detection by side of a square; against what the masks were made for; false alarms."""
    run = masked_run(tmp_path, KINDS[kind], count=15)
    figures, frame = figures_of(run, 1), frame_of(run)
    hand, rows = ByHand(KINDS[kind]), row_list(run)
    right, right_whole = frame.prediction == frame.label, frame.clean_prediction == frame.label
    assert figures.detection is not None
    assert len(figures.certified["exact"]) == len(figures.certified["published"]) == len(figures.detection.certified)
    by_side = zip(figures.certified["exact"], figures.detection.certified, strict=True)
    for side, (exact, seen) in enumerate(by_side, start=1):
        threat = Threat(side, side)
        assert exact.count == sum(right & np.array([hand.recovers(row, threat) for row in rows]))
        assert seen.count == sum(right_whole & np.array([hand.detects(row, threat) for row in rows]))
    agree = np.array([hand.all_agree(row) for row in rows])
    assert {share.count for share in figures.certified["published"]} == {sum(right & agree)}
    own = [Threat(tall, wide) for tall in range(1, 7) for wide in range(1, 7) if tall * wide <= 6]  # of the area
    if not isinstance(run.job.ablation.threat, Area):
        own = [Threat(*run.job.ablation.threat, run.job.ablation.threat_patches)]
    recovered, noticed = figures.own_threat["recovery"], figures.own_threat["detection"]
    for rule, found in (("exact", [hand.recovers(row, *own) for row in rows]), ("published", agree)):
        assert recovered[rule] == Share(int(sum(right & np.array(found))), 15)
    for rule, found in (
        ("exact", [hand.detects(row, *own) for row in rows]),
        ("published", [hand.all_comply(row) for row in rows]),
    ):
        assert noticed[rule] == Share(int(sum(right_whole & np.array(found))), 15)
    silent = frame.detection_certified.eq(True)
    assert figures.detection.silent == Share(int((right_whole & silent).sum()), 15)
    assert figures.detection.false_alarms == Share(int((frame.votes.notna() & ~silent).sum()), 15)
    threat = run.job.ablation.threat
    if threat == (3, 3):
        assert recovered["exact"] == figures.certified["exact"][2]
        assert noticed["exact"] == figures.detection.certified[2]
    assert sum(one.certified for one in figures.classes) == figures.certified["exact"][0].count


def test_without_clean_predictions_masks_detect_nothing(tmp_path: Path) -> None:
    figures = figures_of(masked_run(tmp_path, count=6, clean=False), 3)
    assert figures.detection is None
    assert [*figures.own_threat] == ["recovery"]


def test_votes_that_were_not_cast_are_not_counted(tmp_path: Path) -> None:
    """`early_exit` of masks leaves them out."""
    votes = [0, 1, *[0] * 7, 0, *[-1] * 35]
    run = judged_run(tmp_path, {"a.tar": [image("0", votes)]}, ablation={**MASKS, "early_exit": True})
    found = figures_of(run)
    assert (found.votes, found.fragile[-1]) == (10, 0)
