"""Whether an image is right, certified, or an error: by the columns of a run and by its votes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smoothcert.pipeline.compare.measures import Certified, certified_in, errors_in, right_in, slack_and_place
from smoothcert.pipeline.pages.rows import Rows
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import ABSENT, numbers_of
from tests.helpers.judged_runs import CLASSES, image, judged_run
from tests.helpers.masked_runs import masked_run
from tests.helpers.masked_runs import rows_of as all_rows_of

COLUMNS = ["status", "label", "prediction", "max_certified_patch", "max_margin_certified_patch", "votes"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Random votes of which one class leads, one image without votes, one of a wrong label."""
    random = np.random.default_rng(0)
    votes = np.where(
        random.random((40, 12)) < 0.8, np.arange(40)[:, None] % CLASSES, random.integers(0, CLASSES, (40, 12))
    )
    images = [image(str(number), one.tolist(), label=number % CLASSES) for number, one in enumerate(votes)]
    images[3] = image("3", None)
    images[5] |= {"label": None, "status": "label_error", "error": "it is no number"}
    return judged_run(tmp_path, {"a.tar": images})


def rows_of(run: Run) -> Rows:
    (file,) = read_published(run, COLUMNS)
    return Rows(file.rows, run.job)


def test_absent_classes_are_never_right(run: Run) -> None:
    """A label that is missing does not equal a prediction that is missing."""
    rows = rows_of(run).table
    assert numbers_of(rows["prediction"])[3] == ABSENT
    assert not right_in(rows, "prediction")[[3, 5]].any()
    assert right_in(rows, "prediction").sum() > 20


def test_errors_are_all_that_is_not_ok(run: Run) -> None:
    assert np.flatnonzero(errors_in(rows_of(run).table)).tolist() == [3, 5]


def test_columns_of_pixels_do_not_mind_the_height(run: Run) -> None:
    """A rectangle is answered from the votes; for columns only its width matters."""
    rows = rows_of(run)
    squares = certified_in(rows, Certified((2, 2), "exact"))
    assert squares.any()
    assert (certified_in(rows, Certified((7, 2), "exact")) == squares).all()


def test_slack_says_by_how_many_votes_a_certificate_holds(run: Run) -> None:
    """It is 0 or more if the image is certified, and null without votes."""
    rows, measure = rows_of(run), Certified((2, 2), "exact")
    described = slack_and_place(rows, np.ones(40, bool), measure)
    slack = described["slack"].to_pylist()
    assert slack[3] is None
    assert described["left"].to_pylist()[3] is None
    assert [one is not None and one >= 0 for one in slack] == certified_in(rows, measure).tolist()
    some = np.arange(40) % 3 == 0
    for name, column in slack_and_place(rows, some, measure).items():
        assert column.to_pylist() == described[name].filter(pa.array(some)).to_pylist()
    assert slack_and_place(rows, np.arange(40) == 3, measure)["slack"].to_pylist() == [None]


def test_a_measure_names_its_column_and_reads_as_words() -> None:
    measure = Certified((16, 48), "exact")
    assert (measure.column, measure.text) == ("certified_16x48_exact", "certified against 16 x 48 (exact rule)")


def test_a_rule_that_looks_at_no_place_names_none(tmp_path: Path) -> None:
    """The published rule of masks counts votes of the whole map."""
    rows = all_rows_of(masked_run(tmp_path))
    described = slack_and_place(rows, np.ones(len(rows.table), bool), Certified((3, 3), "published"))
    assert set(described["top"].to_pylist()) == set(described["left"].to_pylist()) == {None}
    votes, prediction = rows.table["votes"].to_pylist(), rows.table["prediction"].to_pylist()
    differing = [
        None if one is None else -sum(vote != predicted for vote in one)
        for one, predicted in zip(votes, prediction, strict=True)
    ]
    assert described["slack"].to_pylist() == differing
