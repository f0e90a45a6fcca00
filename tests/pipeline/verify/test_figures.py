"""A changed figure in _SUCCESS is named."""

import re
from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.check import verify
from smoothcert.pipeline.verify.figures import Totals
from smoothcert.pipeline.verify.record import open_run
from tests.helpers.damages import Change, Damages
from tests.helpers.finished_runs import edit_json, file_of, has, rows_of

DAMAGES = Damages()


def edit_success(run: Path, **changes: Any) -> None:
    edit_json(run / "_SUCCESS", lambda success: success.update(changes))


@DAMAGES.add("^_SUCCESS rows: is 99, the rows give 13$")
def success_rows(run: Path) -> None:
    """More rows than there are."""
    edit_success(run, rows=99)


@DAMAGES.add("^_SUCCESS status: is .*, the rows give .*'label_error': 1")
def success_status(run: Path) -> None:
    """Errors passed over."""
    edit_success(run, status={"ok": 13})


@DAMAGES.add("^_SUCCESS clean_accuracy: is 2, the rows give 0")
def success_clean_accuracy(run: Path) -> None:
    """A figure of the summary."""
    edit_success(run, clean_accuracy=2)


@DAMAGES.add("^_SUCCESS smoothed_accuracy: is None, the rows give 0")
def success_smoothed_accuracy(run: Path) -> None:
    """The job has labels, so there is one."""
    edit_success(run, smoothed_accuracy=None)


@DAMAGES.add("^_SUCCESS certified: is .*'exact': 2.* the rows give .*'exact': 0")
def success_certified(run: Path) -> None:
    """A certified accuracy."""
    edit_json(run / "_SUCCESS", lambda success: success["certified"][1].update(exact=2))


@DAMAGES.add("^_SUCCESS certified: is patch, the rows give")
def success_certified_damaged(run: Path) -> None:
    """Not a list of patches."""
    edit_success(run, certified="patch")


@DAMAGES.add("^_SUCCESS status: is .*'size_error': True.*, the rows give .*'size_error': 1")
def success_status_of_truth(run: Path) -> None:
    """In Python True equals 1."""
    edit_json(run / "_SUCCESS", lambda success: success["status"].update(size_error=True))


@DAMAGES.add("^_SUCCESS rotated_images: is None, expected a valid integer$")
def success_rotated_images(run: Path) -> None:
    """A figure that the rows do not give."""
    edit_success(run, rotated_images=None)


@DAMAGES.add("^_SUCCESS suffixes_without_image: is bmp, expected a valid list$")
def success_suffixes(run: Path) -> None:
    """Readers would take it for three suffixes."""
    edit_success(run, suffixes_without_image="bmp")


@DAMAGES.add("^_SUCCESS files: names votes/y.parquet, which belongs to no shard$")
def success_files(run: Path) -> None:
    """The hash of a file that no shard has."""
    edit_json(run / "_SUCCESS", lambda success: success["files"].update({"votes/y.parquet": "00"}))


@DAMAGES.add("^_SUCCESS: is damaged")
def success_damaged(run: Path) -> None:
    """No JSON."""
    (run / "_SUCCESS").write_text('{"rows": 13')


@pytest.mark.parametrize(("change", "expected", "problems"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_file_is_found(run: Path, change: Change, expected: str, problems: int) -> None:
    """One cause is as few lines as it can be."""
    change(run)
    found = verify(str(run)).problems
    assert has(found, expected)
    assert len(found) == problems, found


@pytest.mark.parametrize("key", ["exact", "published", "detection"])
def test_a_share_of_masks_is_counted(masks_run: Path, key: str) -> None:
    """Each that _SUCCESS has, against the threat of the job; the line says what the rows give."""
    edit_json(masks_run / "_SUCCESS", lambda success: success["certified"][0].update({key: 2}))
    (problem,) = verify(str(masks_run)).problems
    assert re.match(f"_SUCCESS certified: is .*'{key}': 2.* the rows give .*'{key}': 0.[0-9]+", problem)


def test_the_threat_of_masks_is_that_of_the_job(masks_run: Path) -> None:
    """One entry, against the patch that the masks are made for."""
    edit_json(masks_run / "_SUCCESS", lambda success: success["certified"].append(success["certified"][0]))
    assert has(verify(str(masks_run)).problems, "^_SUCCESS certified: is ")
    edit_json(masks_run / "_SUCCESS", lambda success: success.update(certified=[]))
    assert has(verify(str(masks_run)).problems, "^_SUCCESS certified: is ")


def test_shares_of_masks_count_what_is_right(any_masks: Path) -> None:
    """
    Recovery counts right predictions, detection whole images that are classified right; both of all images.
    Oracle: the rows, one by one.
    """
    rows = [row for number in (0, 1) for row in rows_of(file_of(any_masks, number))]
    right = [row for row in rows if row["label"] is not None and row["prediction"] == row["label"]]
    seen = [row for row in rows if row["label"] is not None and row["clean_prediction"] == row["label"]]
    (found,) = verify(str(any_masks)).figures.certified
    assert found["exact"] == sum(row["recovery_certified"] for row in right) / 13
    assert found["published"] == sum(row["recovery_published"] for row in right) / 13
    assert found["detection"] == sum(row["detection_certified"] for row in seen) / 13


def test_an_area_has_no_patch(masks_run: Path) -> None:
    """The threat is many rectangles; without usable labels, no share is known."""
    record = open_run(str(masks_run), Storage()).record
    ablation = record.job.ablation.model_copy(update={"threat": {"pixels": 9}})
    job = record.job.model_copy(update={"ablation": ablation})
    shares = dict.fromkeys(("exact", "published", "detection"))
    assert Totals().certified(job) == ({"patch": None, "pixels": 9, "patches": 1} | shares,)
