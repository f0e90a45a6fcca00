"""A sound run passes; a changed value, row, file or figure is named, by a hash and by what it contradicts."""

import ast
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests.errors import RequestError
from manifests.job import Ablation, load_job
from pipeline import replay
from pipeline.certify_all import certify_all
from pipeline.cli import app
from pipeline.plan import begin, make_plan
from pipeline.verify import verify
from tests.helpers import jobs
from tests.helpers.tars import png, tar_of, write_tar
from workers import votes_table
from workers.certificates import certify
from workers.geometry import Geometry

HOUSE = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
Edit = Callable[[list[Row]], None]
COLUMN = Ablation(kind="column", size=4, stride=3)  # 3 does not divide 16: the published formula is wrong
RUNS: dict[str, dict[str, Any]] = {
    "column": {},
    "row": {"ablation": {"kind": "row", "size": 3, "stride": 2, "edges": "inside"}, "clean": False},
    "block": {"ablation": {"kind": "block", "size": 5, "stride": 4}, "images": {"shards": "tars", "label": None}},
    "limit": {"images": {"shards": "tars", "limit": 9}, "preprocess": {"resize": 10, "crop": 8, "upsample": 2}},
}


def finish(folder: Path, **changes: Any) -> Path:
    """Certify a small job on two shards, the second with images and labels that are wrong; the run's folder."""
    (folder / "tars").mkdir()
    wrong = [("c.png", b"no image"), ("c.cls", b"1"), ("d.png", png(4, 4)), ("e.png", png(16, 16)), ("e.cls", b"cat")]
    write_tar(folder / "tars", tar_of(jobs.samples(0, 6)), "00.tar")
    write_tar(folder / "tars", tar_of([*jobs.samples(6, 2), *wrong, *jobs.samples(8, 2)]), "01.tar")
    job = load_job(jobs.write_job(folder, **{"ablation": COLUMN.model_dump()} | changes))
    plan = make_plan(job)
    begin(plan)
    certifier = plan.certifier(threads=1)
    for task in plan.todo:
        assert list(certifier.certify(task))
    certify_all(job)  # nothing is left to do but _SUCCESS
    return Path(plan.run.url)


@pytest.fixture(scope="module", params=RUNS)
def any_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp(request.param), **RUNS[request.param])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of one run, to be changed; its tars and weights are shared."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def file_of(run: Path, number: int = 0) -> Path:
    return sorted((run / "votes").iterdir())[number]


def rows_of(file: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


def write(file: Path, rows: list[Row], *, renew: bool, schema: pa.Schema | None = None, **metadata: Any) -> None:
    """Put other rows or metadata into a file; `renew` makes its checksum, and its hash in _SUCCESS, fit again."""
    found = pq.read_schema(file)
    described = json.loads(found.metadata[votes_table.METADATA_KEY]) | metadata
    fields = [
        field.with_nullable(field.nullable or any(row[field.name] is None for row in rows)) for field in schema or found
    ]
    table = pa.Table.from_pylist(rows, pa.schema(fields))
    if renew:
        described["columns_sha256"] = votes_table.columns_sha256(table)
    pq.write_table(table.replace_schema_metadata({votes_table.METADATA_KEY: json.dumps(described)}), file)
    if renew:
        renew_hash(file)


def renew_hash(file: Path) -> None:
    name, sha256 = f"votes/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest()
    edit_json(file.parents[1] / "_SUCCESS", lambda success: success["files"].update({name: sha256}))


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def settle(row: Row, votes: list[int]) -> None:
    """Other votes with all that follows from them."""
    certificates = certify(np.array([votes]), Geometry.of(COLUMN, jobs.CROP, jobs.CROP), classes=jobs.CLASSES)
    row |= {"votes": votes} | {name: int(values[0]) for name, values in vars(certificates).items()}


def test_a_sound_run_is_all_right(any_run: Path) -> None:
    """Columns, rows and blocks, both edges, with and without labels, clean votes, resize and limit."""
    rows = 9 if "limit" in any_run.parts[-3] else 13
    report = verify(f"{any_run}/")
    assert (report.problems, report.notices) == ((), ())
    assert (report.run_id, report.files, report.rows) == (any_run.name, 2, rows)


@pytest.mark.parametrize("kind", ["column", "row", "block"])
@pytest.mark.parametrize(
    ("size", "stride", "edges"), [(4, 1, "wrap"), (5, 3, "wrap"), (3, 5, "inside"), (16, 6, "wrap")]
)
def test_it_counts_as_the_engine_does(tmp_path: Path, kind: str, size: int, stride: int, edges: str) -> None:
    """
    Two implementations that share no code agree on prediction, runner-up and both max columns.
    Oracle: certificates.py, on votes from unanimous to random, five classes.
    """
    jobs.write_shards(tmp_path, shards=1)
    write_tar(tmp_path / "tars", tar_of(jobs.samples(0, 1)) + bytes(512 * 1200), "00.tar")
    ablation = Ablation(kind=kind, size=size, stride=stride, edges=edges)
    plan = make_plan(load_job(jobs.write_job(tmp_path), [f"ablation={ablation.model_dump()}", "model.classes=5"]))
    begin(plan)
    geometry, random = Geometry.of(ablation, jobs.CROP, jobs.CROP), np.random.default_rng(size)
    A = geometry.num_ablations
    votes = np.where(
        random.random((300, A)) < random.random((300, 1)) ** 3,
        random.integers(0, 5, (300, A)),
        random.integers(0, 5, (300, 1)),
    )
    certificates = {name: values.tolist() for name, values in vars(certify(votes, geometry, classes=5)).items()}
    row = {
        "shard": "00.tar",
        "image_bytes": 100,
        "sha256": bytes(32),
        "status": "ok",
        "label": 0,
        "width": 16,
        "height": 16,
    }
    row |= {"clean_prediction": 0, "clean_margin": 1.0, "margins": [1.0] * A}
    rows = [
        row
        | {"key": str(index), "index": index, "image_offset": 512 + 1024 * index, "votes": votes[index].tolist()}
        | {name: values[index] for name, values in certificates.items()}
        for index in range(300)
    ]
    metadata = {"run_id": plan.run.run_id, "votes_version": 1, "geometry": ablation.model_dump() | {"crop": jobs.CROP}}
    metadata["shard"] = {"name": "00.tar", "size": plan.tasks[0].shard.size}
    plan.run.store.publish(plan.run.url, plan.tasks[0].file_name, votes_table.encode(rows, A, metadata))
    report = verify(plan.run.url)
    assert (report.rows, report.problems) == (300, ())
    assert report.notices == ("unfinished: 1 of 1 shards are published",)
    for row in rows:
        row["max_certified_patch"] += 1
        row["max_margin_certified_patch"] -= 1
    (Path(plan.run.url) / plan.tasks[0].file_name).write_bytes(votes_table.encode(rows, A, metadata))
    assert len(verify(plan.run.url).problems) == 600


def test_a_limit_is_a_number_of_rows(tmp_path: Path) -> None:
    """With a limit the rows of each shard are known, and one less is a problem."""
    run = finish(tmp_path, **RUNS["limit"])
    write(file_of(run, 1), rows_of(file_of(run, 1))[:-1], renew=True)
    assert verify(str(run)).problems[0] == "votes/00001-01.parquet: has 2 rows, expected 3"


@pytest.mark.parametrize("any_run", ["row", "block", "limit"], indirect=True)
def test_a_file_of_another_run_is_found(run: Path, any_run: Path) -> None:
    """Put in under the right name; where it claims to be of this run by its geometry, or else by a replay."""
    name = file_of(run).name
    shutil.copy(any_run / "votes" / name, run / "votes" / name)
    assert f"votes/{name}: belongs to run {any_run.name}" in verify(str(run)).problems
    write(file_of(run), rows_of(file_of(run)), renew=True, run_id=run.name)
    problems = [problem for problem in replayed(run) if not problem.startswith("_SUCCESS")]
    assert problems
    assert all(problem.startswith(f"votes/{name} ") for problem in problems)


# Rows

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


OF_A_HASH = ("metadata columns_sha256: ", "its SHA-256 is ")


def has(problems: tuple[str, ...], expected: str) -> bool:
    return any(re.search(expected, problem) for problem in problems)


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


def test_all_that_is_wrong_is_named(run: Path) -> None:
    """Problems of several rows, columns and files are all there, each once."""
    for number in (0, 1):
        rows = rows_of(file_of(run, number))
        for row in rows[:2]:
            row["count"] += 1
            row["clean_margin"] = -1.0
        write(file_of(run, number), rows, renew=True)
    problems = verify(str(run)).problems
    assert len(problems) == len(set(problems)) == 8


def test_a_missing_element_of_a_list_is_found(run: Path) -> None:
    """A list of A may not hold a null."""
    rows = rows_of(file_of(run))
    rows[1]["votes"][2] = rows[2]["margins"][3] = None
    write(file_of(run), rows, renew=False)
    problems = verify(str(run)).problems
    assert has(problems, r"row 1 key '0001' column votes: of the ablations \[2\]")
    assert has(problems, r"row 2 key '0002' column margins: of the ablations \[3\]")


# Files


FILES: list[tuple[Callable[[Path], Any], str, int]] = []


def damage(expected: str, problems: int = 1) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    """Add a change of a run's folder to the table, with the line that names it and the number of lines."""

    def add(change: Callable[[Path], Any]) -> Callable[[Path], Any]:
        FILES.append((change, expected, problems))
        return change

    return add


def edit_success(run: Path, **changes: Any) -> None:
    edit_json(run / "_SUCCESS", lambda success: success.update(changes))


@damage("^votes/00001-01.parquet: is missing, though _SUCCESS is there$")
def shard_removed(run: Path) -> None:
    """_SUCCESS stays behind."""
    file_of(run, 1).unlink()


@damage("^votes/00000-00.parquet: belongs to run 0123456789abcdef$")
def file_of_another_run(run: Path) -> None:
    """By its metadata."""
    write(file_of(run), rows_of(file_of(run)), renew=True, run_id="0123456789abcdef")


@damage("^votes/00000-00.parquet metadata shard: is .'01.tar', [0-9]+., expected .'00.tar'", problems=2)
def file_of_another_shard(run: Path) -> None:
    """Under the first shard's name, of a run that is not finished: metadata and the first row tell."""
    shutil.copy(file_of(run, 1), file_of(run))
    (run / "_SUCCESS").unlink()


@damage("^votes/x.parquet: is of no shard of this run$")
def file_too_many(run: Path) -> None:
    """Readers of votes/*.parquet would count it."""
    shutil.copy(file_of(run), run / "votes" / "x.parquet")


@damage("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_truncated(run: Path) -> None:
    """One line, not one for each thing that cannot be seen."""
    file_of(run).write_bytes(file_of(run).read_bytes()[:-100])


@damage("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_empty(run: Path) -> None:
    """The same with nothing left."""
    file_of(run).write_bytes(b"")


@damage("^votes/00000-00.parquet: cannot be read as a file of votes")
def file_without_metadata(run: Path) -> None:
    """As other tools write it."""
    pq.write_table(pq.read_table(file_of(run)).replace_schema_metadata(None), file_of(run))


@damage("^votes/00000-00.parquet: its SHA-256 is [0-9a-f]{64}, _SUCCESS says [0-9a-f]{64}$")
def file_written_anew(run: Path) -> None:
    """The same values in another encoding: the checksum covers values, the hash bytes."""
    pq.write_table(pq.read_table(file_of(run)), file_of(run), compression="none")


@damage("^votes/00000-00.parquet column label: is int64, expected int32$")
def column_retyped(run: Path) -> None:
    """Values are the same, the type is not."""
    found = pq.read_schema(file_of(run))
    schema = found.set(found.get_field_index("label"), pa.field("label", pa.int64()))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=schema)


@damage("^votes/00000-00.parquet column key: is string, expected string not null$")
def column_made_nullable(run: Path) -> None:
    """Values and type are the same, the promise is not."""
    found = pq.read_schema(file_of(run))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=found.set(0, pa.field("key", pa.string())))


@damage("^votes/00000-00.parquet columns: are .*'max_certified_patch'., expected .*'max_margin_certified_patch'.$")
def column_removed(run: Path) -> None:
    """The last one."""
    found = pq.read_schema(file_of(run))
    write(file_of(run), rows_of(file_of(run)), renew=True, schema=found.remove(len(found) - 1))


@damage("^votes/00000-00.parquet metadata geometry: is .*'stride': 2")
def geometry_of_metadata(run: Path) -> None:
    """Another stride than the job's."""
    geometry = {"crop": 16, "edges": "wrap", "kind": "column", "size": 4, "stride": 2}
    write(file_of(run), rows_of(file_of(run)), renew=True, geometry=geometry)


@damage("^votes/00000-00.parquet metadata votes_version: is 2, expected 1$")
def votes_version_of_metadata(run: Path) -> None:
    """Votes of another engine."""
    write(file_of(run), rows_of(file_of(run)), renew=True, votes_version=2)


@damage("^votes/00000-00.parquet: has 0 rows, expected at least one$")
def no_rows(run: Path) -> None:
    """A shard without images is not published."""
    write(file_of(run), [], renew=True)
    (run / "_SUCCESS").unlink()


@damage("^_SUCCESS rows: is 99, the rows give 13$")
def success_rows(run: Path) -> None:
    """More rows than there are."""
    edit_success(run, rows=99)


@damage("^_SUCCESS status: is .*, the rows give .*'label_error': 1")
def success_status(run: Path) -> None:
    """Errors passed over."""
    edit_success(run, status={"ok": 13})


@damage("^_SUCCESS clean_accuracy: is 2, the rows give 0")
def success_clean_accuracy(run: Path) -> None:
    """A figure of the summary."""
    edit_success(run, clean_accuracy=2)


@damage("^_SUCCESS smoothed_accuracy: is None, the rows give 0")
def success_smoothed_accuracy(run: Path) -> None:
    """The job has labels, so there is one."""
    edit_success(run, smoothed_accuracy=None)


@damage("^_SUCCESS certified: is .*'exact': 2.* the rows give .*'exact': 0")
def success_certified(run: Path) -> None:
    """A certified accuracy."""
    edit_json(run / "_SUCCESS", lambda success: success["certified"][1].update(exact=2))


@damage("^_SUCCESS certified: is patch, the rows give")
def success_certified_damaged(run: Path) -> None:
    """Not a list of patches."""
    edit_success(run, certified="patch")


@damage("^_SUCCESS files: names votes/y.parquet, of no shard$")
def success_files(run: Path) -> None:
    """The hash of a file that no shard has."""
    edit_json(run / "_SUCCESS", lambda success: success["files"].update({"votes/y.parquet": "00"}))


@damage("^_SUCCESS: is damaged")
def success_damaged(run: Path) -> None:
    """No JSON."""
    (run / "_SUCCESS").write_text('{"rows": 13')


@damage("^run.json run_id: is 0123456789abcdef, the identity gives ", problems=3)
def run_id(run: Path) -> None:
    """Contradicts the identity and both files."""
    edit_json(run / "run.json", lambda record: record.update(run_id="0123456789abcdef"))


@damage("^run.json identity.model.dtype: is left out, the other entries give bfloat16$")
def job_of_another_dtype(run: Path) -> None:
    """The identity has float32, by leaving it out."""
    edit_json(run / "run.json", lambda record: record["job"]["model"].update(dtype="bfloat16"))


@damage("^run.json identity.preprocess.resize: is None, the other entries give left out$", problems=2)
def job_of_another_resize(run: Path) -> None:
    """null in the identity is not the default, which is left out; a size_error has no reason then."""
    edit_json(run / "run.json", lambda record: record["job"]["preprocess"].update(resize=256))


@damage("^run.json identity.images.shards: is ", problems=2)
def size_of_a_shard(run: Path) -> None:
    """Contradicts the identity and the metadata of its file."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(size=10**6))


@damage("^run.json shards: their limits do not go with images.limit None, partial False")
def limit_of_a_shard(run: Path) -> None:
    """A run without limit."""
    edit_json(run / "run.json", lambda record: record["shards"][0].update(limit=6))


@damage("^run.json identity.model.checkpoint_sha256: is [0-9a-f]{64}, the other entries give 00$")
def checkpoint(run: Path) -> None:
    """Other weights than the identity's."""
    edit_json(run / "run.json", lambda record: record["checkpoint"].update(sha256="00"))


@pytest.mark.parametrize(("change", "expected", "problems"), FILES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_changed_file_is_found(run: Path, change: Callable[[Path], Any], expected: str, problems: int) -> None:
    """Files, metadata, _SUCCESS and run.json; one cause is as few lines as it can be."""
    change(run)
    found = verify(str(run)).problems
    assert has(found, expected)
    assert len(found) == problems, found


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"run_id": "x", "identity": {}, "job": {}, "shards": []}'])
def test_a_damaged_run_json_is_a_wrong_request(run: Path, content: str) -> None:
    """Without run.json nothing can be said, in one line."""
    with pytest.raises(RequestError, match=r"holds no run\.json; name the folder of a run"):
        verify(str(run / "votes"))
    (run / "run.json").write_text(content)
    with pytest.raises(RequestError, match=r"run\.json is damaged .*; restore it$"):
        verify(str(run))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("ablation", {"size": 17}),
        ("ablation", {"stride": 0}),
        ("ablation", {"kind": "spiral"}),
        ("model", {"classes": None}),
        ("preprocess", {"resize": "large"}),
        ("preprocess", {"resize": []}),
    ],
)
def test_an_impossible_job_is_a_wrong_request(run: Path, part: str, change: dict[str, Any]) -> None:
    """Nothing can be counted with it."""
    edit_json(run / "run.json", lambda record: record["job"][part].update(change))
    with pytest.raises(RequestError, match=r"run\.json is damaged"):
        verify(str(run))


def test_an_unfinished_run_is_no_problem(run: Path) -> None:
    """What is there is checked; what is missing is a notice."""
    (run / "_SUCCESS").unlink()
    file_of(run, 0).unlink()
    report = verify(str(run))
    assert (report.problems, report.notices) == ((), ("unfinished: 1 of 2 shards are published",))
    assert (report.files, report.rows) == (1, 7)


# The command


def smoothcert(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return result.exit_code, result.stdout


def test_the_command(run: Path) -> None:
    """Problems, then notices, then a verdict; exit code 1 with problems; one JSON object with --json."""
    assert smoothcert(run) == (0, "13 rows in 2 files: all right\n")
    (run / "_SUCCESS").unlink()
    shutil.copy(file_of(run), run / "votes" / "x.parquet")
    code, text = smoothcert(run)
    assert (code, text.splitlines()) == (
        1,
        [
            "votes/x.parquet: is of no shard of this run",
            "notice: unfinished: 2 of 2 shards are published",
            "13 rows in 2 files: 1 problem",
        ],
    )
    code, text = smoothcert(run, "--json")
    assert code == 1
    assert json.loads(text) == {
        "run_id": run.name,
        "files": 2,
        "rows": 13,
        "problems": ["votes/x.parquet: is of no shard of this run"],
        "notices": ["unfinished: 2 of 2 shards are published"],
    }
    assert smoothcert(run / "votes")[0] == 2


def test_it_is_independent() -> None:
    """It imports nothing that makes what it checks, and no torch unless it replays."""
    allowed = {"manifests.errors", "manifests.job", "workers.storage", "pipeline.replay", "numpy", "pyarrow"}
    tree = ast.parse((HOUSE / "pipeline" / "verify.py").read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module for module in modules if module.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= allowed | {"pyarrow.parquet", "numpy.typing"}


def test_it_loads_no_torch(finished: Path) -> None:
    """The check of a run is a matter of Parquet."""
    heavy = "{'torch', 'ray', 'timm'} & set(sys.modules)"
    script = f"import sys; from pipeline.verify import verify; assert not verify({str(finished)!r}).problems; "
    result = subprocess.run(
        [sys.executable, "-c", f"{script} sys.exit(str({heavy}) if {heavy} else 0)"], cwd=HOUSE, check=False
    )
    assert result.returncode == 0


# Replay


def replayed(run: Path) -> tuple[str, ...]:
    return verify(str(run), replay=100, seed=1).problems


def test_replay_of_a_sound_run(any_run: Path) -> None:
    """All images with votes again: nothing differs; a seed chooses the same images."""
    report = verify(str(any_run), replay=100, seed=7)
    assert report.problems == ()
    assert re.fullmatch(
        r"replayed \d+ images chosen with seed 7: \d+ of \d+ votes are numerically fragile \(margin at most 0\.001\), "
        r"0 of them differ",
        report.notices[0],
    )
    few = verify(str(any_run), replay=2, seed=7)
    assert few == verify(str(any_run), replay=2, seed=7)
    assert few.notices[0].startswith("replayed 2 images chosen with seed 7: ")


def forged_votes(rows: list[Row]) -> None:
    """Votes with all that follows from them."""
    settle(rows[1], [(vote + 1) % jobs.CLASSES for vote in rows[1]["votes"]])


def fragile_forgery(rows: list[Row]) -> None:
    """A forged vote with a margin that calls it fragile."""
    votes = rows[1]["votes"]
    settle(rows[1], [(votes[0] + 1) % jobs.CLASSES, *votes[1:]])
    rows[1]["margins"][0] = 1e-6


def image_cut_short(rows: list[Row]) -> None:
    """One byte less of the image."""
    rows[1]["image_bytes"] -= 1


def other_clean_prediction(rows: list[Row]) -> None:
    """Of the whole image."""
    rows[1]["clean_prediction"] = (rows[1]["clean_prediction"] + 1) % jobs.CLASSES


def image_of_another(rows: list[Row]) -> None:
    """The hash of another image."""
    rows[1]["sha256"] = rows[0]["sha256"]


def renamed(rows: list[Row]) -> None:
    """A key that the tar does not have."""
    rows[1]["key"] = "new"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (labels_swapped, "row 1 key '0001' column label: is 2, in the tar 1"),
        (last_row_dropped, "lacks key '0005' of the tar"),
        (margin, "row 1 key '0001' column margins: .0. are "),
        (forged_votes, "row 1 key '0001' column votes: .0, 1, 2, 3, 4, 5. are "),
        (fragile_forgery, "row 1 key '0001' column margins: .0. are .9[.]99"),
        (other_clean_prediction, "row 1 key '0001' column clean_prediction: .0. are "),
        (image_of_another, "row 1 key '0001' column sha256: is not that of the bytes at image_offset"),
        (image_cut_short, "row 1 key '0001' column image_bytes: is [0-9]+, in the tar [0-9]+"),
        (renamed, "row 1 key 'new' column key: is not in the tar"),
    ],
)
def test_replay_finds_what_contradicts_the_tar_or_the_model(run: Path, edit: Edit, expected: str) -> None:
    """Forgeries that contradict nothing in the run, or of which replay says what they are."""
    rows = rows_of(file_of(run))
    edit(rows)
    write(file_of(run), rows, renew=True)
    assert has(replayed(run), f"^votes/00000-00.parquet {expected}")


def test_fragile_votes_are_counted_not_blamed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With margins at most the tolerance two machines may vote differently."""
    monkeypatch.setitem(replay.TOLERANCE, "float32", 1e3)
    rows = rows_of(file_of(run))
    forged_votes(rows)
    write(file_of(run), rows, renew=True)
    (run / "_SUCCESS").unlink()
    report = verify(str(run), replay=100, seed=1)
    assert report.problems == ()
    fragile = 11 * (len(rows[0]["votes"]) + 1)
    assert report.notices[1].startswith(f"replayed 11 images chosen with seed 1: {fragile} of {fragile} votes ")
    assert report.notices[1].endswith(", 6 of them differ")


def test_replay_without_its_data(tmp_path: Path) -> None:
    """A tar that changed is a problem of one line; one that is gone, or a checkpoint, a wrong request."""
    run = finish(tmp_path)
    members = tar_of([(name, b"2" if name.endswith("cls") else content) for name, content in jobs.samples(0, 6)])
    write_tar(tmp_path / "tars", members, "00.tar")
    (problem,) = replayed(run)
    assert re.match("votes/00000-00.parquet: is of a tar with SHA-256 [0-9a-f]{64}, ", problem)
    jobs.write_weights(tmp_path / "weights.pt", fill=0.5)
    with pytest.raises(RequestError, match=r"weights\.pt is not the checkpoint of the run"):
        replayed(run)
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(RequestError, match=r"weights\.pt is gone, so votes cannot be replayed"):
        replayed(run)
    (tmp_path / "tars" / "01.tar").unlink()
    with pytest.raises(RequestError, match=r"01\.tar is gone, so votes cannot be replayed"):
        replayed(run)
