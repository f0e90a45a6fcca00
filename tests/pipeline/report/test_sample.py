"""A sample is drawn alike from any files, and its figures are those of brute force."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smoothcert.pipeline.report.figures import columns_of
from smoothcert.pipeline.report.sample import Sampler, sample_figures
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.certificates.rules import Ballots, exact_rule, slack_if_touched
from smoothcert.workers.runs.published import PublishedFile, read_published
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers.judged_runs import CLASSES, CROP, image, judged_run
from tests.helpers.masked_runs import KINDS, ByHand, masked_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    random = np.random.default_rng(1)
    leader = np.arange(60) % CLASSES
    votes = np.where(random.random((60, 12)) < 0.7, leader[:, None], random.integers(0, CLASSES, (60, 12)))
    images = [image(str(number), one.tolist(), label=int(number) % CLASSES) for number, one in enumerate(votes)]
    images[4] = image("4", None)
    return judged_run(tmp_path, {"a.tar": images[:25], "b.tar": images[25:]})


def files_of(run: Run) -> list[PublishedFile]:
    return list(read_published(run, columns_of(run.job)))


def drawn(files: list[tuple[int, PublishedFile]], size: int, seed: int = 0, of_class: int | None = None) -> pa.Table:
    sampler = Sampler(size, seed, of_class)
    for index, file in files:
        sampler.add(index, file)
    return sampler.rows()


def test_a_sample_does_not_depend_on_the_order_of_the_files(run: Run) -> None:
    """Another seed draws others; all are drawn if there are not enough."""
    files = list(enumerate(files_of(run)))
    one, other = drawn(files, 20), drawn(files[::-1], 20)
    assert one.equals(other)
    assert len(one) == 20
    assert not drawn(files, 20, seed=1).equals(one)
    assert len(drawn(files, 100)) == 59  # one has no votes


def test_a_sample_of_a_class_has_no_other(run: Run) -> None:
    rows = drawn(list(enumerate(files_of(run))), 100, of_class=2)
    assert rows["label"].to_pylist() == [2] * 15


def test_figures_of_a_sample_are_those_of_the_rule(run: Run) -> None:
    """Rectangles, one and two patches; and the atlas, place by place."""
    rows, job = drawn(list(enumerate(files_of(run))), 30), run.job
    figures = sample_figures(rows, job, 2, seed=0, of_class=None)
    ablations = ablations_of(job.ablation, CROP, CROP)
    ballots = Ballots.of(np.stack(rows["votes"].to_pylist()), classes=CLASSES)
    right = np.array(rows["label"].to_pylist()) == np.array(rows["prediction"].to_pylist())
    for row, height in enumerate(figures.heights):
        for column, width in enumerate(figures.widths):
            certified = exact_rule(ballots, ablations, Threat(height, width)).certified
            assert figures.rectangles[row, column] == (certified & right).mean()
    for side, one, two in zip(figures.sides, figures.one, figures.two, strict=True):
        assert one.count == (exact_rule(ballots, ablations, Threat(side, side)).certified & right).sum()
        assert two.count == (exact_rule(ballots, ablations, Threat(side, side, 2)).certified & right).sum()
        assert two.count <= one.count
    for row, top in enumerate(figures.tops):
        for column, left in enumerate(figures.lefts):
            slack, _ = slack_if_touched(ballots, ablations.touched_at(2, 2, top, left))
            assert figures.atlas[row, column] == pytest.approx(slack.mean())


@pytest.mark.parametrize("side", [1, 8])
def test_a_run_of_any_kind_has_an_atlas(any_run: Path, side: int) -> None:
    """Up to a patch as large as the image."""
    run = open_run(str(any_run))
    rows = drawn(list(enumerate(files_of(run))), 100)
    figures = sample_figures(rows, run.job, side, seed=0, of_class=None)
    assert figures.atlas.shape == (len(figures.tops), len(figures.lefts))
    assert figures.images == len(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_a_sample_of_masks_are_those_by_hand(tmp_path: Path, kind: str) -> None:
    """Rectangles that no mask hides are unknown; two patches are of masks for two patches."""
    run = masked_run(tmp_path, KINDS[kind], count=12)
    rows = drawn(list(enumerate(files_of(run))), 30)
    figures = sample_figures(rows, run.job, 2, seed=0, of_class=None)
    patches = KINDS[kind].get("threat_patches", 1)
    hand = ByHand(KINDS[kind])
    judged = [row | {"margins": [1.0] * len(row["votes"])} for row in rows.to_pylist()]  # without a tolerance

    def by_hand(threat: Threat) -> float:
        if not all(hand.hiding(threat).values()):
            return np.nan
        return sum(row["label"] == row["prediction"] and hand.recovers(row, threat) for row in judged) / len(rows)

    expected = [[by_hand(Threat(height, width)) for width in figures.widths] for height in figures.heights]
    np.testing.assert_array_equal(figures.rectangles, expected)
    assert np.isnan(figures.rectangles).any() == (kind in ("area", "two patches"))
    assert np.isnan(by_hand(Threat(figures.heights[-1] + 1, 1)))
    assert bool(figures.sides) == (patches == 2)
    for side, two in zip(figures.sides, figures.two, strict=True):
        assert two.value == by_hand(Threat(side, side, 2))
    there = hand.hiding(Threat(2, 2))
    for row, top in enumerate(figures.tops):
        for column, left in enumerate(figures.lefts):
            counts = [len(hand.uniform(row) & {*there[((top, left),)]}) - 1 for row in judged]
            assert figures.atlas[row, column] == pytest.approx(np.mean(counts))
