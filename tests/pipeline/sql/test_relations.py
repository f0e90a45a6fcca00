"""The tables of SQL hold what the files hold, of one run or several, from a folder or from S3."""

import os
from pathlib import Path

import boto3
import moto
import numpy as np
import pytest
from pyarrow import fs

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.sql.relations import TABLES, connect, s3_system
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run, open_run
from tests.helpers.finished_runs import edit_json, upload
from tests.helpers.judged_runs import CROP, image, judged_run
from tests.helpers.masked_runs import KINDS, MASKS, ByHand, masked_run

SURE, CLOSE = [0] * 12, [0] * 7 + [1] * 5


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two shards; one image is misjudged, one has no votes."""
    shards = {
        "a.tar": [image("0", SURE), image("1", CLOSE), image("2", None)],
        "b.tar": [image("3", [2] * 12), image("4", [3] * 12, label=3)],
    }
    return judged_run(tmp_path, shards)


def asked(runs: list[Run], question: str) -> list[tuple]:
    return connect(runs, Storage()).sql(question).fetchall()


def test_images_are_the_rows_of_the_files(run: Run) -> None:
    """Values and names of all columns, the run's id before them."""
    database = connect([run], Storage())
    rows = database.sql("select * from images order by shard, key").to_arrow_table().to_pylist()
    names = ["key", "shard", "sha256", "status", "error", "label", "prediction", "votes", "margins", "index"]
    files = [row for file in read_published(run, names) for row in file.rows.to_pylist()]
    assert [{name: row[name] for name in names} for row in rows] == files
    assert {row["run_id"] for row in rows} == {run.run_id}


def test_certificates_are_those_of_the_columns(run: Run) -> None:
    """For each square and rule; an image without votes is not certified."""
    (row,) = asked([run], "select count(*), count(distinct side), count(distinct rule) from certified")
    assert row == (5 * CROP * 2, CROP, 2)
    rows = asked([run], "select key, certified, correct from certified where side = 2 and rule = 'exact' order by key")
    assert rows == [
        ("0", True, True),
        ("1", False, True),
        ("2", False, False),
        ("3", True, False),
        ("4", True, True),
    ]
    for rule, column in (("exact", "max_certified_patch"), ("margin", "max_margin_certified_patch")):
        question = f"select key, max(side) from certified where certified and rule = '{rule}' group by key order by key"
        stored = asked([run], f"select key, {column} from images where {column} > 0 order by key")
        assert asked([run], question) == stored


def test_classes_count_their_images(run: Run) -> None:
    """With the class that each is mistaken for most often."""
    rows = asked([run], "select class, images, clean, smoothed, mistaken_for from classes order by class")
    assert rows == [(0, 4, 3, 2, 2), (3, 1, 0, 1, None)]


def test_classes_have_the_names_that_the_run_knows(run: Run, tmp_path: Path) -> None:
    """Of several runs each has its own; a run without names has null."""
    assert asked([run], "select class, class_name from classes order by class") == [(0, None), (3, None)]
    other = judged_run(tmp_path / "other", {"a.tar": [image("0", SURE), image("1", SURE, label=1)]}, weights="1")
    edit_json(Path(other.url, "run.json"), lambda record: record.update(class_names=["cat", "dog", "owl", "elk"]))
    question = f"select class, class_name, images from classes order by run_id = '{run.run_id}', class"
    rows = asked([run, open_run(other.url)], question)
    assert rows == [(0, "cat", 1), (1, "dog", 1), (0, None, 4), (3, None, 1)]


def test_without_labels_a_class_is_a_prediction(tmp_path: Path) -> None:
    """And nothing is right or wrong."""
    run = judged_run(tmp_path, {"a.tar": [image("0", SURE, None)]}, images={"shards": "unused", "label": None})
    assert asked([run], "select class, images, clean, smoothed, mistaken_for from classes") == [
        (0, 1, None, None, None)
    ]
    assert asked([run], "select distinct correct from certified") == [(None,)]


def test_without_clean_predictions_none_is_counted_as_wrong(tmp_path: Path) -> None:
    """`clean: false` leaves the column empty."""
    run = judged_run(tmp_path, {"a.tar": [image("0", SURE)]}, clean=False)
    assert asked([run], "select clean, smoothed from classes") == [(None, 1)]


@pytest.mark.parametrize(
    "ablation",
    [
        {"kind": "column", "size": 3, "stride": 2},
        {"kind": "row", "size": 3, "edges": "inside"},
        {"kind": "block", "size": 5, "stride": 3},
        {"kind": "block", "size": 5, "stride": 3, "edges": "inside"},
    ],
)
def test_an_ablation_shows_its_first_pixel(tmp_path: Path, ablation: dict) -> None:
    """`top` and `left` say where it begins; each has its vote and its margin."""
    shown = ablations_of(WindowAblation(**ablation), CROP, CROP)
    count = shown.num_ablations
    votes, margins = [number % 4 for number in range(count)], [number / 10 for number in range(count)]
    run = judged_run(tmp_path, {"a.tar": [image("0", votes, margins=margins)]}, ablation=ablation)
    rows = asked([run], 'select ablation, top, "left", vote, margin from ablations order by ablation')
    visible = shown.visible(np.arange(count))
    for number, top, left, vote, margin in rows:
        assert visible[number, top, left]
        assert not (ablation["kind"] != "column" and top and visible[number, top - 1, left])
        assert not (ablation["kind"] != "row" and left and visible[number, top, left - 1])
        assert (vote, margin) == (votes[number], pytest.approx(margins[number]))
    assert len(rows) == count


def test_ablations_are_not_kept_in_memory(run: Run) -> None:
    """A join keeps its right side: that must be the offsets, not the votes of all images."""
    ((_, plan),) = asked([run], "explain select count(*) from ablations")
    (join,) = [line for line in plan.splitlines() if "Hash Join" in line]
    (votes,) = [line for line in plan.splitlines() if "Unnest" in line]
    assert votes.index("Unnest") == join.index("Hash Join")


def test_several_runs_are_one_relation(run: Run, tmp_path: Path) -> None:
    """Though their lists have other lengths."""
    inside = {"kind": "column", "size": 3, "edges": "inside"}
    other = judged_run(tmp_path, {"c.tar": [image("0", [0] * 10, margins=[1.0] * 10)]}, ablation=inside)
    rows = asked([run, other], "select run_id, count(*), max(len(votes)) from images group by run_id order by 2")
    assert rows == [(other.run_id, 1, 10), (run.run_id, 5, 12)]
    (row,) = asked([run, other], "select count(*) from runs where complete and labelled and crop = 12")
    assert row == (2,)


def test_a_run_from_s3_answers_the_same(run: Run, bucket: str) -> None:
    """Read in place, with the credentials of the environment."""
    there = open_run(upload(Path(run.url), bucket))
    for table in TABLES:
        question = f"select * exclude ({'path' if table == 'runs' else 'run_id'}) from {table} order by all"
        assert asked([there], question) == asked([run], question)


@pytest.mark.parametrize("region", [None, "us-west-2"])  # unknown, or wrong
def test_a_bucket_is_read_in_its_own_region(region: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the other commands, which need no region either."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    there, host = "eu-central-1", "s3.eu-central-1.amazonaws.com"
    with moto.mock_aws():
        keys = boto3.Session().get_credentials()
        client = boto3.client("s3", region_name=there)
        client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": there})
        expected = fs.S3FileSystem(
            access_key=keys.access_key, secret_key=keys.secret_key, region=there, endpoint_override=host
        )
        assert s3_system(Storage(region=region), "bucket").equals(expected)
        anonymous = s3_system(Storage(region=region, anonymous=True), "bucket")
        assert anonymous.equals(fs.S3FileSystem(anonymous=True, region=there, endpoint_override=host))
        with pytest.raises(RequestError, match="s3://absent: does not exist"):
            s3_system(Storage(region=region), "absent")


def test_a_run_that_cannot_be_asked_is_refused(run: Run, tmp_path: Path) -> None:
    """It is named twice, or has no files yet, or lies where SQL cannot read."""
    with pytest.raises(RequestError, match=rf"run {run.run_id} is named twice; name each run once"):
        connect([run, run], Storage())
    empty = judged_run(tmp_path, {"e.tar": [image("0", SURE)]}, finished=False)
    next(Path(empty.url, "votes").iterdir()).unlink()
    with pytest.raises(RequestError, match="has no files of votes yet"):
        connect([empty], Storage())
    paid = Run("s3://bucket/run", run.record, run.store)
    object.__setattr__(paid, "published", lambda: run.published())
    with pytest.raises(RequestError, match="sql cannot read requester-pays buckets"):
        connect([paid], Storage(requester_pays=True))
    elsewhere = Run("hf://datasets/me/runs/run", run.record, run.store)
    object.__setattr__(elsewhere, "published", lambda: run.published())
    with pytest.raises(RequestError, match=r"hf://.*: sql reads runs from folders and S3; copy the run there"):
        connect([elsewhere], Storage())


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_of_masks_are_those_of_their_columns(tmp_path: Path, kind: str) -> None:
    """For the square that they were made for; other squares need the votes, so there are no rows for them."""
    run = masked_run(tmp_path, KINDS[kind], count=15)
    question = "select key, certified from certified where side = 3 and rule = '{}' order by key"
    for rule, column in (("exact", "recovery_certified"), ("published", "recovery_published")):
        stored = asked([run], f"select key, coalesce({column}, false) from images order by key")
        assert asked([run], question.format(rule)) == (stored if kind == "square" else [])
    sides = asked([run], "select distinct side from certified")
    assert sides == ([(3,)] if kind == "square" else [])


def test_masks_and_columns_are_one_relation(run: Run, tmp_path: Path) -> None:
    """Each with its own rules and keys; what does not apply is null."""
    masks = masked_run(tmp_path / "masks", KINDS["two patches"], count=6)
    squares = masked_run(tmp_path / "squares", count=6)
    question = "select distinct kind, rule from certified join runs using (run_id) order by all"
    rows = asked([run, masks, squares], question)
    assert rows == [("column", "exact"), ("column", "margin"), ("mask", "exact"), ("mask", "published")]
    names = "kind, size, stride, edges, threat, per_axis, threat_patches, fill, early_exit"
    assert set(asked([run, masks, squares], f"select {names} from runs")) == {
        ("column", 3, 1, "wrap", None, None, None, "black", None),
        ("mask", None, None, None, "2 patches of 2 x 2", 3, 2, "mean", False),
        ("mask", None, None, None, "3 x 3", 3, 1, "mean", False),
    }
    assert asked([run, masks], "select count(*) from images where detection_certified is null") == [(6,)]
    alone = asked([run], "select * from certified order by all")
    question = f"select * from certified where run_id = '{run.run_id}' order by all"
    assert asked([run, squares], question) == alone


def test_an_ablation_of_masks_is_where_its_first_rectangle_begins(tmp_path: Path) -> None:
    """A vote that was not cast is null, and so is its margin."""
    early = {**MASKS, "early_exit": True}
    votes = [0, 1, *[0] * 7, 0, *[-1] * 35]
    run = judged_run(tmp_path, {"a.tar": [image("0", votes)]}, ablation=early)
    rows = asked([run], 'select ablation, top, "left", vote, margin from ablations order by ablation')
    hidden = ByHand(early).masks.hidden
    assert len(rows) == len(hidden) == 45
    for number, top, left, vote, margin in rows:
        assert (top, left) in hidden[number]
        if number < 9:  # single rectangles
            assert (top, left) == min(hidden[number])
        assert (vote, margin) == ((None, None) if votes[number] == -1 else (votes[number], 1.0))
