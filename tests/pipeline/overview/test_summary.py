"""The figures of a run, against those counted from its rows one by one."""

import json
from pathlib import Path

import pytest

from smoothcert.manifests.job import load_job
from smoothcert.pipeline.overview.summary import summarise
from smoothcert.workers.runs.run import open_run
from tests.helpers.finished_runs import Row, file_of, finish, rows_of, write


def all_rows(run: Path) -> list[Row]:
    return [row for file in sorted((run / "votes").iterdir()) for row in rows_of(file)]


def share(rows: list[Row], column: str, side: int, *, labelled: bool) -> float:
    certified = [row for row in rows if row[column] is not None and row[column] >= side]
    return sum(not labelled or row["prediction"] == row["label"] for row in certified) / len(rows)


def test_figures_are_those_of_the_rows(any_run: Path) -> None:
    """An accuracy is a share of all rows; without labels, certificates are shares of images."""
    opened = open_run(str(any_run))
    summary, rows = summarise(opened, opened.job), all_rows(any_run)
    labelled = opened.job.images.label is not None
    assert (summary.images, summary.labelled) == (len(rows), labelled)
    assert summary.status == {status: sum(row["status"] == status for row in rows) for status in summary.status}
    assert sum(summary.status.values()) == len(rows)
    assert summary.without_votes == sum(row["votes"] is None for row in rows)
    right = sum(row["prediction"] == row["label"] and row["label"] is not None for row in rows) / len(rows)
    assert summary.smoothed_accuracy == (pytest.approx(right) if labelled else None)
    assert [one.patch for one in summary.certified] == [(side, side) for side in opened.job.patches]
    for one in summary.certified:
        assert one.exact == pytest.approx(share(rows, "max_certified_patch", one.patch[0], labelled=labelled))
        assert one.margin == pytest.approx(share(rows, "max_margin_certified_patch", one.patch[0], labelled=labelled))


@pytest.mark.parametrize("clean", [True, False])
def test_figures_of_masks_are_those_of_the_rows(tmp_path: Path, *, clean: bool) -> None:
    """Against their own threat: recovery of right predictions, detection of right classes of whole images."""
    run = finish(tmp_path, ablation={"kind": "mask", "threat": "3x5", "per_axis": 2}, clean=clean)
    opened = open_run(str(run))
    summary, rows = summarise(opened, opened.job), all_rows(run)
    (one,) = summary.certified
    assert (one.patch, one.pixels, one.patches, one.against) == ((3, 5), None, 1, "3 x 5")
    right = [row for row in rows if row["prediction"] is not None and row["prediction"] == row["label"]]
    whole = [row for row in rows if row["clean_prediction"] is not None and row["clean_prediction"] == row["label"]]
    assert one.exact == pytest.approx(sum(row["recovery_certified"] for row in right) / len(rows))
    assert one.published == pytest.approx(sum(row["recovery_published"] for row in right) / len(rows))
    noticed = sum(bool(row["detection_certified"]) for row in whole) / len(rows)
    assert one.detection == (pytest.approx(noticed) if clean else None)


def test_the_clean_accuracy_needs_labels_and_clean_votes(any_run: Path) -> None:
    """It is unknown in a job without either."""
    opened = open_run(str(any_run))
    known = opened.job.clean and opened.job.images.label is not None
    assert (summarise(opened, opened.job).clean_accuracy is not None) == known


def test_patches_of_the_table_change_without_a_new_run(any_run: Path) -> None:
    """A job with other patches has the same run."""
    opened = open_run(str(any_run))
    other = opened.job.model_copy(update={"patches": (3,)})
    assert [one.patch for one in summarise(opened, other).certified] == [(3, 3)]


def test_figures_are_those_of_success(any_run: Path) -> None:
    """_SUCCESS has them, the number of shards, and the hashes of the files."""
    opened = open_run(str(any_run))
    summary = summarise(opened, opened.job)
    success = json.loads((any_run / "_SUCCESS").read_text())
    rest = {"rows": summary.images, "shards": 2, "files": summary.files, "adopted_from": {}}
    assert success == json.loads(json.dumps(summary.figures().as_json())) | rest


def test_no_share_without_a_usable_label(run: Path) -> None:
    """None, never 0 %."""
    for number in range(2):
        rows = rows_of(file_of(run, number))
        for row in rows:
            row["label"] = None
            row |= {"status": "label_error", "error": "no label"} if row["votes"] else {}
        write(file_of(run, number), rows, renew=True)
    opened = open_run(str(run))
    summary = summarise(opened, opened.job)
    assert (summary.clean_accuracy, summary.smoothed_accuracy) == (None, None)
    assert {(one.exact, one.margin) for one in summary.certified} == {(None, None)}
    assert summary.labels.bad == summary.images - summary.without_votes
    assert summary.unusable == summary.images


def test_figures_of_the_files_add_up(run: Path) -> None:
    """What is in their metadata: environments, rotated images, what is left out."""
    changes = (
        {"rotated_images": 2, "system_members": 1, "device": "one"},
        {"rotated_images": 3, "samples_without_image": 2, "suffixes_without_image": ["bmp"], "device": "other"},
    )
    for number, metadata in enumerate(changes):
        write(file_of(run, number), rows_of(file_of(run, number)), renew=True, **metadata)
    opened = open_run(str(run))
    summary = summarise(opened, opened.job)
    assert summary.rotated == 5
    assert summary.left_out.as_json() == {
        "system_members": 1,
        "samples_without_image": 2,
        "suffixes_without_image": ["bmp"],
    }
    assert [json.loads(environment)["device"] for environment in summary.environments] == ["one", "other"]


def test_the_first_image_without_votes_is_named(run: Path, finished: Path) -> None:
    """In the order of the shards and of their rows."""
    summary = summarise(open_run(str(run)), load_job(finished.parents[1] / "job.yaml"))
    first = next(row for row in all_rows(run) if row["votes"] is None)
    assert summary.first_without_votes == f"{first['key']}: {first['error']}"
