"""What a reader of a run's figures must know besides."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from smoothcert.manifests.job import Job, load_job
from smoothcert.pipeline.overview.notices import faults_of, left_out_notices, notices_of
from smoothcert.workers.tars.label_counts import Agreement, LabelCounts
from smoothcert.workers.tars.tar_headers import LeftOut
from tests.helpers import jobs
from tests.helpers.summaries import SUMMARY


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return load_job(jobs.write_job(tmp_path), ["max_error_share=0.1"])


@pytest.mark.parametrize(
    ("without_votes", "bad", "says"),
    [
        (0, 0, None),
        (10, 0, None),  # the share that is allowed
        (11, 0, "11 of 100 images have no votes"),
        (0, 11, "11 of 100 images have no usable label"),
        (6, 5, "6 of 100 images have no votes and 5 of 100 images have no usable label"),
    ],
)
def test_too_many_unusable_images_are_a_fault(job: Job, without_votes: int, bad: int, says: str | None) -> None:
    """Images without votes and those without a usable label count together."""
    labels = LabelCounts(images=100, usable=100 - bad, bad=bad)
    found = list(faults_of(replace(SUMMARY, without_votes=without_votes, labels=labels), job))
    line = f"{says}, more than max_error_share (0.1) allows: see the columns status and error"
    assert found == ([] if says is None else [line])


def test_labels_that_are_numbered_otherwise_are_a_fault(job: Job) -> None:
    """Every answer lies one class below its label."""
    shifted = Agreement(0, {-1: Counter({1: 50, 2: 50}), 1: Counter()})
    labels = LabelCounts(images=100, usable=100, agreements=(shifted,))
    (fault,) = faults_of(replace(SUMMARY, labels=labels), job)
    assert fault.startswith("images.label: labels seem to count from 1")


def test_mixed_environments_are_told() -> None:
    """With the number of files from each."""
    assert list(notices_of(SUMMARY)) == []
    mixed = replace(SUMMARY, environments={"one": 2, "other": 1}, left_out=LeftOut(system_members=1))
    first, second = notices_of(mixed)
    assert first.endswith("may depend on them: 2 files by one; 1 files by other")
    assert "1 file that operating systems add" in second


@pytest.mark.parametrize(
    ("left_out", "says"),
    [
        (LeftOut(), []),
        (LeftOut(system_members=1), ["1 file that operating systems add to folders, such as ._NAME or .DS_Store,"]),
        (
            LeftOut(system_members=1000),
            ["1,000 files that operating systems add to folders, such as ._NAME or .DS_"],
        ),
        (
            LeftOut(0, 1, frozenset({"bmp"})),
            ["1 sample in the tars has no member that images.image names (suffixes:"],
        ),
        (
            LeftOut(2, 3, frozenset({"bmp", "tif"})),
            [
                "2 files",
                "3 samples in the tars have no member that images.image names (suffixes: bmp, tif) and",
            ],
        ),
    ],
)
def test_what_is_not_in_the_run_is_told(left_out: LeftOut, says: list[str]) -> None:
    """A line for files of operating systems, one for samples whose image has another suffix."""
    found = list(left_out_notices(left_out))
    assert len(found) == len(says)
    assert all(line.startswith(start) for line, start in zip(found, says, strict=True))


def test_a_line_names_ten_suffixes_at_most() -> None:
    """Tars may hold anything."""
    (line,) = left_out_notices(LeftOut(0, 12, frozenset(f"s{number:02d}" for number in range(12))))
    assert "(suffixes: s00, " in line
    assert "s09 and 2 more)" in line
