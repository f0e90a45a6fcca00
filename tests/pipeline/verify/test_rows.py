"""A changed row is found, by a hash and by what it contradicts."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoothcert.pipeline.verify.check import verify
from tests.helpers import jobs
from tests.helpers.finished_runs import COLUMN, Edit, Row, edit_json, file_of, has, rows_of, settle, write
from tests.helpers.mask_runs import NOT_OF_MASKS, LiteralMasks, as_masks, left_out, some_votes
from tests.pipeline.verify.conftest import MASKS

OF_A_HASH = ("metadata columns_sha256: ", "its SHA-256 is ")
MUTATIONS: list[tuple[Edit, str | None]] = []


def found_as(expected: str | None) -> Callable[[Edit], Edit]:
    """Add an edit of the first file's rows to the table; None: by its content it could be true."""

    def add(edit: Edit) -> Edit:
        MUTATIONS.append((edit, expected))
        return edit

    return add


@found_as("row 1 key '0001' column count: is 5, the votes give 4")
def one_vote(rows: list[Row]) -> None:
    """Another vote, and nothing else."""
    settle(rows[1], [0, 0, 0, 0, 0, 1])
    rows[1]["votes"] = [0, 0, 0, 0, 1, 1]


@found_as("row 1 key '0001' column max_certified_patch: is 4, the votes give 3")
def exact_raised(rows: list[Row]) -> None:
    """A certificate that an attack breaks."""
    settle(rows[1], [0, 0, 0, 0, 0, 1])
    rows[1]["max_certified_patch"] += 1


@found_as("row 1 key '0001' column max_certified_patch: is 2, the votes give 3")
def exact_lowered(rows: list[Row]) -> None:
    """A certificate withheld."""
    settle(rows[1], [0, 0, 0, 0, 0, 1])
    rows[1]["max_certified_patch"] -= 1


@found_as("row 1 key '0001' column max_margin_certified_patch: is 5, the votes give 4")
def margin_raised(rows: list[Row]) -> None:
    """As above, by the margin rule."""
    settle(rows[1], [0, 0, 0, 0, 0, 0])
    rows[1]["max_margin_certified_patch"] += 1


@found_as("row 1 key '0001' column max_margin_certified_patch: is 3, the votes give 4")
def margin_lowered(rows: list[Row]) -> None:
    """As above, by the margin rule."""
    settle(rows[1], [0, 0, 0, 0, 0, 0])
    rows[1]["max_margin_certified_patch"] -= 1


@found_as("row 1 key '0001' column max_certified_patch: is 17, the votes give ")
def larger_than_the_image(rows: list[Row]) -> None:
    """No square of 17 pixels fits."""
    rows[1]["max_certified_patch"] = 17


@found_as("row 1 key '0001' column max_certified_patch: is -1, the votes give ")
def less_than_none(rows: list[Row]) -> None:
    """0 stands for none."""
    rows[1]["max_certified_patch"] = -1


@found_as("row 1 key '0001' column max_margin_certified_patch: is 3, the votes give 1")
def published_formula(rows: list[Row]) -> None:
    """D = ceil((m + b - 1) / s) gives 2 for m = 2 and 3, where a patch can touch 3."""
    settle(rows[1], [0, 0, 0, 0, 0, 1])
    formula = [m for m in range(1, 17) if 2 * math.ceil((m + COLUMN.size - 1) / COLUMN.stride) <= 4]
    rows[1]["max_margin_certified_patch"] = max(formula)


@found_as("row 1 key '0001' column prediction: is 1, the votes give 0")
def tie_to_the_higher_class(rows: list[Row]) -> None:
    """Three votes each: the lower class is the prediction."""
    settle(rows[1], [0, 1, 0, 1, 0, 1])
    rows[1] |= {"prediction": 1, "runner_up": 0}


@found_as("row 1 key '0001' column runner_up: is 2, the votes give 1")
def runner_up_not_the_lowest(rows: list[Row]) -> None:
    """Of two with equally many votes behind the prediction, the lower class."""
    settle(rows[1], [0, 1, 0, 1, 2, 2])
    rows[1]["runner_up"] = 2


@found_as("row 1 key '0001' column runner_up: is 2, the votes give 0")
def runner_up_without_votes_not_the_lowest(rows: list[Row]) -> None:
    """Where one class has all votes, the lowest of the others."""
    settle(rows[1], [1, 1, 1, 1, 1, 1])
    rows[1]["runner_up"] = 2


@found_as("row 1 key '0001' column runner_up_count: is 2, the votes give 1")
def runner_up_count(rows: list[Row]) -> None:
    """One more than its votes."""
    settle(rows[1], [1, 1, 1, 1, 1, 0])
    rows[1]["runner_up_count"] = 2


@found_as("row 1 key '0001' column votes: of the ablations .2. are .3., expected 0 to 2")
def vote_for_no_class(rows: list[Row]) -> None:
    """Classes are 0, 1 and 2."""
    rows[1]["votes"][2] = jobs.CLASSES


@found_as("row 1 key '0001' column margins: of the ablations .0, 3. are .*nan")
def margin_not_a_number(rows: list[Row]) -> None:
    """NaN and infinity."""
    rows[1]["margins"][0] = math.nan
    rows[1]["margins"][3] = math.inf


@found_as("row 1 key '0001' column margins: of the ablations .4. are .-0.5., expected finite")
def margin_negative(rows: list[Row]) -> None:
    """The top logit minus a larger one."""
    rows[1]["margins"][4] = -0.5


@found_as(None)
def margin(rows: list[Row]) -> None:
    """A margin that could be: only its checksum knows better."""
    rows[1]["margins"][0] += 0.25


@found_as("row 1 key '0001' column clean_margin: is -1.0")
def clean_margin_negative(rows: list[Row]) -> None:
    """The same of the whole image."""
    rows[1]["clean_margin"] = -1.0


@found_as("row 1 key '0001' column clean_prediction: is null, which does not go with status ok")
def clean_prediction_null(rows: list[Row]) -> None:
    """The job asks for it."""
    rows[1]["clean_prediction"] = None


@found_as("row 1 key '0001' column clean_prediction: is 3, expected 0 to 2")
def clean_prediction_of_no_class(rows: list[Row]) -> None:
    """Classes are 0, 1 and 2."""
    rows[1]["clean_prediction"] = jobs.CLASSES


@found_as("row 1 key '0001' column label: is 3, expected 0 to 2")
def label_of_no_class(rows: list[Row]) -> None:
    """Such a label would have been a label_error."""
    rows[1]["label"] = jobs.CLASSES


@found_as("row 1 key '0001' column label: is null, which does not go with status ok")
def label_null(rows: list[Row]) -> None:
    """A missing label is a label_error."""
    rows[1]["label"] = None


@found_as(None)
def labels_swapped(rows: list[Row]) -> None:
    """Labels that could be: only the checksum knows better, and the tar (test_replay...)."""
    rows[1]["label"], rows[2]["label"] = rows[2]["label"], rows[1]["label"]


@found_as("row 1 key '0001' column votes: is there, which does not go with status decode_error")
def status_of_an_error(rows: list[Row]) -> None:
    """An image that was not decoded has no votes."""
    rows[1]["status"] = "decode_error"


@found_as("row 1 key '0001' column error: is null, which does not go with status label_error")
def status_of_a_label_error(rows: list[Row]) -> None:
    """An error says what it is."""
    rows[1] |= {"status": "label_error", "label": None}


@found_as("row 1 key '0001' column error: is there, which does not go with status ok")
def error_beside_ok(rows: list[Row]) -> None:
    """Nothing was wrong."""
    rows[1]["error"] = "broken"


@found_as("row 1 key '0001' column status: is fine, expected one of ok, ")
def status_unknown(rows: list[Row]) -> None:
    """No such status."""
    rows[1]["status"] = "fine"


@found_as("row 1 key '0001' column votes: is null, which does not go with status ok")
def votes_null(rows: list[Row]) -> None:
    """An image that was judged has votes."""
    rows[1] |= {"votes": None, "margins": None}


@found_as("row 1 key '0001' column max_certified_patch: is null, which does not go with status ok")
def max_null(rows: list[Row]) -> None:
    """An image with votes has both max columns; 0 is none."""
    rows[1]["max_certified_patch"] = None


@found_as("row 1 key '0001' column status: is size_error, which does not go with an image of 16 x 16 pixels")
def size_error_of_a_fitting_image(rows: list[Row]) -> None:
    """A status that the size contradicts."""
    rows[1] |= {"status": "size_error", "error": "too small"}


@found_as("row 1 key '0001' column status: is ok, which does not go with an image of 15 x 16 pixels")
def width(rows: list[Row]) -> None:
    """The job does not resize, so images have the crop's size."""
    rows[1]["width"] = 15


@found_as("row 1 key '0001' column status: is ok, which does not go with an image of 9000 x 9000 pixels")
def too_large(rows: list[Row]) -> None:
    """Above 64 megapixels nothing is decoded."""
    rows[1] |= {"width": 9000, "height": 9000}


@found_as("row 1 key '0001' column width: and height are")
def size_null(rows: list[Row]) -> None:
    """What was decoded has a size."""
    rows[1]["height"] = None


@found_as("row 2 key '0003' column index: is 3, expected 2")
def row_dropped(rows: list[Row]) -> None:
    """The index has a gap."""
    del rows[2]


@found_as(None)
def last_row_dropped(rows: list[Row]) -> None:
    """How many rows a shard has is known to its tar alone, and to _SUCCESS."""
    rows.pop()


@found_as("row 3 key '0002' column key: comes twice, first in row 2")
def row_doubled(rows: list[Row]) -> None:
    """Two rows of one key."""
    rows.insert(3, dict(rows[2]))


@found_as("row 3 key '0002' column image_offset: is [0-9]+, expected a multiple of 512 from")
def row_doubled_under_another_index(rows: list[Row]) -> None:
    """Counted on, it still lies where the first one lies."""
    rows.append(dict(rows[2]))
    rows.sort(key=lambda row: row["key"])
    for index, row in enumerate(rows):
        row["index"] = index


@found_as("row 1 key '0002' column index: is 2, expected 1")
def rows_swapped(rows: list[Row]) -> None:
    """Rows are in tar order."""
    rows[1], rows[2] = rows[2], rows[1]


@found_as("row 1 key '0000' column key: comes twice, first in row 0")
def key_of_another(rows: list[Row]) -> None:
    """A key is unique in its shard."""
    rows[1]["key"] = rows[0]["key"]


@found_as("row 1 key None column key: is null")
def key_null(rows: list[Row]) -> None:
    """Not nullable by the schema."""
    rows[1]["key"] = None


@found_as("row 1 key '0001' column sha256: is null")
def sha256_null(rows: list[Row]) -> None:
    """Not nullable by the schema."""
    rows[1]["sha256"] = None


@found_as("row 1 key '0001' column shard: is 01.tar, expected 00.tar")
def shard_of_another(rows: list[Row]) -> None:
    """All rows of a file are of its shard."""
    rows[1]["shard"] = "01.tar"


@found_as("row 1 key '0001' column image_offset: is 513, expected a multiple of 512 from")
def offset_between_blocks(rows: list[Row]) -> None:
    """Members of a tar begin at whole blocks."""
    rows[1]["image_offset"] = 513


@found_as("row 1 key '0001' column image_offset: is 512, expected a multiple of 512 from")
def offset_of_another(rows: list[Row]) -> None:
    """Two images in one place."""
    rows[1]["image_offset"] = rows[0]["image_offset"]


@found_as("row 1 key '0001' column image_bytes: is 1000000, from [0-9]+ on in a shard of [0-9]+ bytes")
def beyond_the_shard(rows: list[Row]) -> None:
    """The tar ends before."""
    rows[1]["image_bytes"] = 1000000


@found_as("row 1 key '0001' column image_bytes: is -1")
def less_than_no_bytes(rows: list[Row]) -> None:
    """No image has a negative size."""
    rows[1]["image_bytes"] = -1


@pytest.mark.parametrize(("edit", "expected"), MUTATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_row_is_found(run: Path, edit: Edit, expected: str | None) -> None:
    """By the checksum and the file's hash; where those were renewed, by what it contradicts, if it does."""
    rows = rows_of(file_of(run))
    edit(rows)
    write(file_of(run), rows, renew=False)
    problems = verify(str(run)).problems
    assert all(has(problems, text) for text in (*OF_A_HASH, expected or ""))
    write(file_of(run), rows, renew=True)
    problems = verify(str(run)).problems
    assert not any(has(problems, text) for text in OF_A_HASH)
    if expected is None:
        assert all(problem.startswith("_SUCCESS ") for problem in problems)
    else:
        assert has(problems, f"^{re.escape('votes/00000-00.parquet')} {expected}")


def test_a_missing_element_of_a_list_is_found(run: Path) -> None:
    """A list of A may not hold a null."""
    rows = rows_of(file_of(run))
    rows[1]["votes"][2] = rows[2]["margins"][3] = None
    write(file_of(run), rows, renew=False)
    problems = verify(str(run)).problems
    assert has(problems, r"row 1 key '0001' column votes: of the ablations \[2\]")
    assert has(problems, r"row 2 key '0002' column margins: of the ablations \[3\]")


def test_a_shard_that_is_right_is_no_finding(run: Path) -> None:
    """Also in the row after a wrong one; a wrong shard that continues is named once."""
    rows = rows_of(file_of(run))
    for row in rows[1:3]:
        row["shard"] = "01.tar"
    write(file_of(run), rows, renew=True)
    expected = "votes/00000-00.parquet row 1 key '0001' column shard: is 01.tar, expected 00.tar"
    assert verify(str(run)).problems == (expected,)


OF_MASKS: list[tuple[Edit, str | None]] = []


def found_in_masks(expected: str | None) -> Callable[[Edit], Edit]:
    """Add an edit of the first file's rows of a run of masks."""

    def add(edit: Edit) -> Edit:
        OF_MASKS.append((edit, expected))
        return edit

    return add


@found_in_masks("row 1 key '0001' column recovery_certified: is True, the votes give False")
def recovery_claimed(rows: list[Row]) -> None:
    """One pair of masks differs."""
    rows[1]["recovery_certified"] = True


@found_in_masks("row 0 key '0000' column recovery_certified: is False, the votes give True")
def recovery_withheld(rows: list[Row]) -> None:
    """All votes agree."""
    rows[0]["recovery_certified"] = False


@found_in_masks("row 1 key '0001' column recovery_published: is True, the votes give False")
def published_claimed(rows: list[Row]) -> None:
    """One pair of masks differs."""
    rows[1]["recovery_published"] = True


@found_in_masks("row 0 key '0000' column detection_certified: is False, the votes give True")
def detection_withheld(rows: list[Row]) -> None:
    """All masks agree with the whole image."""
    rows[0]["detection_certified"] = False


@found_in_masks("row 1 key '0001' column detection_certified: is True, the votes give False")
def detection_claimed(rows: list[Row]) -> None:
    """All masks agree, but the whole image is of another class."""
    rows[1]["detection_certified"] = True


@found_in_masks("row 0 key '0000' column detection_certified: is True, the votes give False")
def clean_prediction_of_masks(rows: list[Row]) -> None:
    """Detection depends on it."""
    rows[0]["clean_prediction"] = 1


@found_in_masks("row 3 key '0003' column prediction: is 0, the votes give 1")
def majority_for_the_disagreer(rows: list[Row]) -> None:
    """Three of four masks vote for 0, but the row of the other is uniform."""
    rows[3]["prediction"] = 0


@found_in_masks("row 0 key '0000' column recovery_certified: is True, the votes give False")
def vote_of_a_pair(rows: list[Row]) -> None:
    """Another vote, and nothing else."""
    rows[0]["votes"][-1] = 1


@found_in_masks(
    "row 1 key '0001' column votes: of the ablations .4. are null, but a mask that they belong to may have a "
)
def pair_of_a_row_that_may_be_uniform(rows: list[Row]) -> None:
    """The vote of masks 0 and 1, whose other votes agree."""
    rows[1]["votes"][4] = rows[1]["margins"][4] = None


@found_in_masks("row 4 key '0004' column votes: of the ablations .7, 9. are null, but a mask that they belong to ")
def pair_of_two_rows_of_which_one_may_be_uniform(rows: list[Row]) -> None:
    """The vote of masks 2 and 3: the row of 3 has another vote that differs, the row of 2 has none."""
    assert rows[4]["votes"][9] is not None
    rows[4]["votes"][9] = rows[4]["margins"][9] = None


@found_in_masks("row 0 key '0000' column votes: of the ablations .2. are null")
def mask_without_vote(rows: list[Row]) -> None:
    """An early exit leaves out pairs alone."""
    rows[0]["votes"][2] = rows[0]["margins"][2] = None


@found_in_masks(None)
def pair_that_decides_nothing(rows: list[Row]) -> None:
    """It was left out; whatever its vote, no row that it belongs to is uniform."""
    assert rows[3]["votes"][5] is None
    rows[3]["votes"][5], rows[3]["margins"][5] = 0, 1.0


@found_in_masks("row 4 key '0004' column margins: of the ablations .7. are .1.0., but their votes are null")
def margin_without_vote(rows: list[Row]) -> None:
    """A vote that was not cast has no margin."""
    assert rows[4]["votes"][7] is None
    rows[4]["margins"][7] = 1.0


@found_in_masks("row 3 key '0003' column margins: of the ablations .5. are .nan., but their votes are null")
def margin_not_a_number_without_vote(rows: list[Row]) -> None:
    """That is not null."""
    rows[3]["margins"][5] = math.nan


@found_in_masks("row 0 key '0000' column margins: of the ablations .5. are .nan., expected finite")
def vote_without_margin(rows: list[Row]) -> None:
    """A vote that was cast has one."""
    rows[0]["margins"][5] = None


@found_in_masks("row 0 key '0000' column recovery_certified: is null, which does not go with status ok")
def recovery_null(rows: list[Row]) -> None:
    """An image with votes has it."""
    rows[0]["recovery_certified"] = None


@found_in_masks("row 0 key '0000' column detection_certified: is null, which does not go with status ok")
def detection_null(rows: list[Row]) -> None:
    """An image whose whole was classified has it."""
    rows[0]["detection_certified"] = None


@found_in_masks("row 0 key '0000' column votes: of the ablations .7. are .3., expected 0 to 2")
def pair_for_no_class(rows: list[Row]) -> None:
    """Classes are 0, 1 and 2."""
    rows[0]["votes"][7] = jobs.CLASSES


@pytest.mark.parametrize("column", NOT_OF_MASKS)
def test_columns_that_do_not_apply_to_masks_are_null(masks_run: Path, column: str) -> None:
    """Counts of votes and largest squares say nothing about masks."""
    rows = rows_of(file_of(masks_run))
    rows[2][column] = 1
    write(file_of(masks_run), rows, renew=True)
    expected = f"votes/00000-00.parquet row 2 key '0002' column {column}: is 1, but does not apply to masks"
    assert verify(str(masks_run)).problems == (expected,)


def test_a_run_of_masks_without_clean_votes_has_no_detection(masks_run: Path) -> None:
    """In such a job the column is null, and so is its share."""

    def forget_clean(record: dict[str, Any]) -> None:
        record["job"]["clean"] = record["identity"]["clean"] = False
        canonical = json.dumps(record["identity"], sort_keys=True, separators=(",", ":"))
        record["run_id"] = hashlib.sha256(canonical.encode()).hexdigest()[:16]

    edit_json(masks_run / "run.json", forget_clean)
    edit_json(masks_run / "_SUCCESS", lambda success: success["certified"][0].update(detection=None))
    edit_json(masks_run / "_SUCCESS", lambda success: success.update(clean_accuracy=None))
    run_id = json.loads((masks_run / "run.json").read_text())["run_id"]
    for number in (0, 1):
        rows = rows_of(file_of(masks_run, number))
        for row in rows:
            row |= dict.fromkeys(("clean_prediction", "clean_margin", "detection_certified"))
        write(file_of(masks_run, number), rows, renew=True, run_id=run_id)
    assert verify(str(masks_run)).problems == ()
    rows = rows_of(file_of(masks_run))
    rows[0]["detection_certified"] = True
    write(file_of(masks_run), rows, renew=True)
    expected = "row 0 key '0000' column detection_certified: is there, which does not go with status ok"
    assert verify(str(masks_run)).problems == (f"votes/00000-00.parquet {expected}",)


@pytest.mark.parametrize(("edit", "expected"), OF_MASKS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_row_of_masks_is_found(masks_run: Path, edit: Edit, expected: str | None) -> None:
    """By the checksum and the file's hash; where those were renewed, by what it contradicts, a line for each column."""
    rows = rows_of(file_of(masks_run))
    edit(rows)
    write(file_of(masks_run), rows, renew=False)
    problems = verify(str(masks_run)).problems
    assert all(has(problems, text) for text in (*OF_A_HASH, expected or ""))
    write(file_of(masks_run), rows, renew=True)
    problems = [problem for problem in verify(str(masks_run)).problems if not problem.startswith("_SUCCESS ")]
    assert has(tuple(problems), f"^{re.escape('votes/00000-00.parquet')} {expected}") if expected else not problems
    assert len({problem.partition(": ")[0] for problem in problems}) == len(problems)


def test_without_an_early_exit_no_vote_is_null(finished: Path, tmp_path: Path) -> None:
    """Not even one that decides nothing."""
    masks = LiteralMasks.of(MASKS["early exit"], jobs.CROP)
    ablation = MASKS["early exit"] | {"early_exit": False}
    run = as_masks(
        finished,
        tmp_path / "run",
        ablation,
        lambda row: left_out(masks, some_votes(masks, row["index"], row["label"] or 0, jobs.CLASSES)),
    )
    problems = verify(str(run)).problems
    assert "votes/00000-00.parquet row 3 key '0003' column votes: of the ablations [5, 6, 9] are null" in problems
    assert len(problems) == 3, problems


def test_a_sound_run_of_masks_is_all_right(any_masks: Path) -> None:
    """With and without an early exit, against one patch and two."""
    report = verify(str(any_masks))
    assert (report.problems, report.notices, report.rows) == ((), (), 13)
