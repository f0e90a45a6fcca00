"""Answers of a query against counting by hand, over files of known votes."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from smoothcert.manifests.identity import identity_of, run_id_of
from smoothcert.manifests.job import Job
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.query.answers import AnswersFile
from smoothcert.workers.ablations import touched
from smoothcert.workers.runs.votes_table import encode
from smoothcert.workers.storage.store import sha256_of

CROP, CLASSES, SIZE = 12, 4, 3
JOB = {
    "name": "known votes",
    "images": {"shards": "unused"},
    "model": {"architecture": "vit_tiny_patch16_224", "checkpoint": "unused", "classes": CLASSES},
    "preprocess": {"resize": None, "crop": CROP},
    "ablation": {"kind": "column", "size": SIZE},
    "patches": [1, 2],
    "output": "unused",
}


def known_votes(seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """[images, 12] votes of which one class often leads, and their margins."""
    random = np.random.default_rng(seed)
    leader = random.integers(0, CLASSES, (images, 1))
    votes = np.where(
        random.random((images, CROP)) < random.uniform(0.6, 1, (images, 1)),
        leader,
        random.integers(0, CLASSES, (images, CROP)),
    )
    return votes, random.random((images, CROP)).astype(np.float32)


def write_run(folder: Path, *, labelled: bool = True, shards: int = 2, published: int = 2, **job: object) -> Path:
    """A run of two shards with known votes; the last image of each has none."""
    job = JOB | {"images": {"shards": "unused", "label": "cls" if labelled else None}} | job
    tars = [Shard(f"{number}.tar", f"{number}.tar", 1, "", None) for number in range(shards)]
    identity = identity_of(Job.model_validate(job), tars, checkpoint_sha256="0" * 64, checkpoint_key=None, limit=None)
    run = folder / run_id_of(identity)
    (run / "votes").mkdir(parents=True)
    record = {
        "run_id": run.name,
        "name": "known votes",
        "partial": False,
        "identity": identity,
        "job": job,
        "checkpoint": {"sha256": "0" * 64, "key": None},
        "shards": [vars(tar) | {"limit": None} for tar in tars],
    }
    (run / "run.json").write_text(json.dumps(record))
    for number in range(published):
        votes, margins = known_votes(number, 20)
        rows = [
            {
                "key": f"{number}-{index}",
                "shard": f"{number}.tar",
                "index": index,
                "image_offset": 0,
                "image_bytes": 1,
                "sha256": bytes(32),
                "status": "ok",
                "label": index % CLASSES if labelled else None,
            }
            | ({"votes": votes[index], "margins": margins[index]} if index < 19 else {"status": "decode_error"})
            for index in range(20)
        ]
        data = encode(rows, CROP, {"run_id": run.name, "shard": {"name": f"{number}.tar"}})
        (run / "votes" / f"{number:05d}-{number}.parquet").write_bytes(data)
    if published == shards:
        finish(run)
    return run


def finish(run: Path) -> None:
    """Write _SUCCESS."""
    files = {f"votes/{file.name}": sha256_of(file) for file in (run / "votes").iterdir()}
    (run / "_SUCCESS").write_text(json.dumps({"files": files, "rows": 20 * len(files)}))


def ask(run: Path, *options: str) -> list[dict]:
    """The JSON of a query."""
    result = CliRunner().invoke(app, ["query", str(run), "--json", *options])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def holds(votes: list[int], places: list[int], width: int, fragile: set[int], stride: int) -> bool:
    """Whether the prediction survives patches at these columns, counted pixel by pixel."""
    offsets = range(0, CROP, stride)
    hit = {
        place
        for place, offset in enumerate(offsets)
        if {(offset + step) % CROP for step in range(SIZE)} & {left + x for left in places for x in range(width)}
    } | fragile
    counts = [votes.count(name) for name in range(CLASSES)]
    winner = counts.index(max(counts))
    kept = [[vote for place, vote in enumerate(votes) if place not in hit].count(name) for name in range(CLASSES)]
    return all(
        kept[winner] > kept[rival] + len(hit) or (kept[winner] == kept[rival] + len(hit) and winner < rival)
        for rival in range(CLASSES)
        if rival != winner
    )


@pytest.mark.parametrize(
    ("width", "patches", "stride", "tolerance"),
    [(1, 1, 1, 0.0), (2, 1, 1, 0.0), (3, 1, 1, 0.1), (1, 2, 1, 0.0), (1, 2, 1, 0.05), (2, 1, 2, 0.0), (1, 2, 3, 0.1)],
)
def test_counts_are_those_by_hand(tmp_path, width, patches, stride, tolerance):
    """Images, right ones and certified ones of every question, counted over all places of the patches."""
    run = write_run(tmp_path)
    options = [f"--patch=5x{width}", f"--patches={patches}", f"--stride={stride}", f"--tolerance={tolerance}"]
    (answer,) = ask(run, *options)
    certified = correct = both = 0
    for number in range(2):
        votes, margins = known_votes(number, 20)
        for index in range(19):
            cast = votes[index, ::stride].tolist()
            fragile = set(np.flatnonzero(margins[index, ::stride] < tolerance).tolist())
            lefts = range(CROP - width + 1)
            spots = [[x] for x in lefts] if patches == 1 else [[x, y] for x in lefts for y in lefts]
            held = all(holds(cast, spot, width, fragile, stride) for spot in spots)
            counts = [cast.count(name) for name in range(CLASSES)]
            right = counts.index(max(counts)) == index % CLASSES
            certified, correct, both = certified + held, correct + right, both + (held and right)
    assert 0 < certified < 38
    assert answer == {
        "run_id": run.name,
        "job": "known votes",
        "checkpoint_sha256": "0" * 64,
        "complete": True,
        "partial": False,
        "shards": [2, 2],
        "patch": [5, width],
        "patches": patches,
        "stride": stride,
        "tolerance": tolerance,
        "rule": "exact",
        "class": None,
        "images": 40,
        "certified": certified,
        "correct": correct,
        "certified_correct": both,
        "is_bound": False,
    }


def test_several_values_make_a_grid(tmp_path):
    """Every combination is answered, in order; the margin rule never certifies more."""
    run = write_run(tmp_path)
    answers = ask(run, "--patch=1", "--patch=2x3", "--stride=1", "--stride=2", "--rule=exact", "--rule=margin")
    assert [(a["patch"], a["stride"], a["rule"]) for a in answers] == [
        (patch, stride, rule) for patch in ([1, 1], [2, 3]) for stride in (1, 2) for rule in ("exact", "margin")
    ]
    assert all(
        exact["certified"] >= margin["certified"] for exact, margin in zip(answers[::2], answers[1::2], strict=True)
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_by_class(tmp_path, labelled):
    """Classes are labels, or predictions without labels, where nothing is right or wrong; they add up."""
    answers = ask(write_run(tmp_path, labelled=labelled), "--patch=1", "--by=class")
    total, *classes = answers
    assert (total["class"], total["images"]) == (None, 40)
    assert [answer["class"] for answer in classes] == list(range(CLASSES))
    assert sum(answer["certified"] for answer in classes) == total["certified"]
    assert sum(answer["images"] for answer in classes) == (40 if labelled else 38)
    if labelled:
        assert sum(answer["correct"] for answer in classes) == total["correct"]
    else:
        assert (
            {answer["correct"] for answer in answers} == {answer["certified_correct"] for answer in answers} == {None}
        )


def test_answers_for_each_image(tmp_path):
    """The Parquet file has a row for each question and image, agrees with the counts, and says of which run it is."""
    run, out = write_run(tmp_path, shards=3), tmp_path / "answers.parquet"
    answers = ask(run, "--patch=1", "--patch=2", f"--parquet={out}")
    file = pq.ParquetFile(out)
    said = {"run_id": run.name, "job": "known votes", "checkpoint_sha256": "0" * 64}
    said |= {"complete": False, "partial": False, "shards": [2, 3]}
    assert json.loads(file.metadata.metadata[b"smoothcert"]) == said
    assert all(said.items() <= answer.items() for answer in answers)
    rows = file.read().to_pylist()
    assert len(rows) == 2 * 40
    voted = [row for row in rows if row["prediction"] is not None]
    assert len(voted) == 2 * 38
    assert not any(row["certified"] or row["slack"] or row["weakest"] for row in rows if row["prediction"] is None)
    for answer in answers:
        own = [row for row in rows if [row["patch_height"], row["patch_width"]] == answer["patch"]]
        assert sum(row["certified"] for row in own) == answer["certified"]
        assert sum(row["certified"] and row["prediction"] == row["label"] for row in own) == answer["certified_correct"]
        assert sum(row["certified"] for row in own) / len(own) == answer["certified"] / answer["images"]
        assert all(row["certified"] == (row["slack"] >= 0) for row in own if row in voted)
    assert [path.name for path in tmp_path.iterdir() if "answers" in path.name] == ["answers.parquet"]


def test_an_unfinished_run_is_answered_with_a_notice(tmp_path):
    """What is published is answered, and the notice says how much that is; a run without files has no images."""
    run = write_run(tmp_path, shards=3)
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1"])
    assert result.exit_code == 0
    assert "answers are of 2 of 3 shards" in result.stderr
    (nothing,) = ask(write_run(tmp_path / "b", published=0), "--patch=1")
    assert (nothing["images"], nothing["certified"]) == (0, 0)


@pytest.mark.parametrize(
    ("published", "success", "complete", "marks"),
    [
        (2, True, True, []),
        (2, False, False, ["UNFINISHED: 2 of 2 shards, no _SUCCESS"]),  # every file is there, and yet
        (1, False, False, ["UNFINISHED: 1 of 2 shards, no _SUCCESS"]),
        (1, True, False, ["UNFINISHED: 1 of 2 shards"]),
        (0, False, False, ["UNFINISHED: 0 of 2 shards, no _SUCCESS"]),
    ],
)
def test_the_title_names_the_run_and_says_whether_it_is_finished(tmp_path, published, success, complete, marks):
    """The title names job, run and model, and says UNFINISHED unless _SUCCESS and all files are there; so does JSON."""
    run = write_run(tmp_path)
    for file in sorted((run / "votes").iterdir())[published:]:
        file.unlink()
    if not success:
        (run / "_SUCCESS").unlink()
    title = CliRunner().invoke(app, ["query", str(run), "--patch=1"]).stdout.splitlines()[0]
    assert title == ", ".join(["known votes", f"run {run.name}", "model unused, SHA-256 " + "0" * 12, *marks])
    (answer,) = ask(run, "--patch=1")
    assert answer["complete"] is complete


def test_a_finished_partial_run_says_partial(finished_partial):
    """In its title and in JSON; it is complete."""
    result = CliRunner().invoke(app, ["query", str(finished_partial), "--patch=1"])
    assert (result.exit_code, "UNFINISHED" in result.stdout) == (0, False)
    assert ", PARTIAL: the first 9 images" in result.stdout.splitlines()[0]
    (answer,) = ask(finished_partial, "--patch=1")
    assert (answer["complete"], answer["partial"]) == (True, True)


def test_by_class_without_classes(tmp_path):
    """Where no image has a label the classes that were asked for are missing, and a notice says so."""
    run = write_run(tmp_path, shards=1, published=0)
    row = {"key": "a", "shard": "0.tar", "index": 0, "image_offset": 0, "image_bytes": 1, "sha256": bytes(32)}
    row |= {"status": "label_error", "votes": [0] * CROP, "margins": [1.0] * CROP}
    data = encode([row], CROP, {"run_id": run.name})
    (run / "votes" / "00000-0.parquet").write_bytes(data)
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1", "--by=class"])
    assert "class" in result.stdout
    assert "1 image has no class" in result.stderr
    assert "100.00 %" in result.stdout  # it has votes, and all are of one class


def test_a_bound_says_so(tmp_path, monkeypatch):
    """Patches of too many places are answered by a bound, in the table and in JSON."""
    monkeypatch.setattr(touched, "MAX_LISTED", 0)
    run = write_run(tmp_path)
    (answer,) = ask(run, "--patch=1", "--patches=9")
    assert answer["is_bound"]
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1", "--patches=9"])
    assert ">= " in result.stdout
    assert "sound bound" in result.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--patch=x"], "expected a side such as 32"),
        (["--patch=13"], "must be 1x1 to 12x12"),
        (["--patch=0"], "must be 1x1 to 12x12"),
        (["--patch=1", "--parquet=/nowhere/x.parquet"], "cannot be written"),
        (["--patch=1", "--parquet=/"], "is there already"),
        (["--patch=1", "--parquet=."], "is there already"),
        (["--patch=1", "--parquet=s3://bucket/x.parquet"], "name a file of this machine"),
        (["--patch=1", "--tolerance=inf"], "finite number"),
        (["--patch=" + "9" * 5000], "expected a side such as 32"),
        (["--patch=1", "--patches=145"], "must be 1 to 144"),
        (["--patch=1", "--stride=13"], "up to 12"),
    ],
)
def test_a_wrong_question_is_one_line(tmp_path, options, says):
    """What cannot be answered ends with exit code 2 and one line."""
    result = CliRunner().invoke(app, ["query", str(write_run(tmp_path)), *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_votes_of_a_run_are_never_overwritten(tmp_path):
    """Answers go to a new file only: not over the votes, nor over earlier answers."""
    run = write_run(tmp_path)
    votes = run / "votes" / "00000-0.parquet"
    before = votes.read_bytes()
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1", f"--parquet={votes}"])
    assert result.exit_code == 2
    assert votes.read_bytes() == before


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({"preprocess": {"resize": None, "crop": CROP - 1}}, "its columns are not those of the job"),
        ({"model": JOB["model"] | {"classes": 2}}, "has other votes than run.json's job gives"),
    ],
)
def test_votes_of_another_job_are_refused(tmp_path, job, says):
    """Votes that run.json's job cannot have given are an error, not an answer."""
    result = CliRunner().invoke(app, ["query", str(write_run(tmp_path, **job)), "--patch=1"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr


def test_a_job_that_was_edited_is_refused(tmp_path):
    """Of narrower columns the same votes would certify more: the job must be the one that gave the run its id."""
    run = write_run(tmp_path)
    record = json.loads((run / "run.json").read_text())
    record["job"]["ablation"]["size"] = 1
    (run / "run.json").write_text(json.dumps(record))
    result = CliRunner().invoke(app, ["query", str(run), "--patch=1"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "contradicts itself" in result.stderr


def test_weakest_places_are_where_the_slack_is(tmp_path):
    """The places named for each image are inside the frame, one a patch, and decide."""
    run, out = write_run(tmp_path), tmp_path / "answers.parquet"
    ask(run, "--patch=5x2", "--patches=1", "--patches=2", f"--parquet={out}")
    for row in pq.read_table(out).to_pylist():
        if row["prediction"] is None:
            continue
        assert len(row["weakest"]) == row["patches"]
        assert all(top <= CROP - 5 and left <= CROP - 2 for top, left in row["weakest"])
        votes, _ = known_votes(int(row["key"][0]), 20)
        cast = votes[int(row["key"].split("-")[1])].tolist()
        lefts = [left for _, left in row["weakest"]]
        assert holds(cast, lefts, 2, set(), 1) == row["certified"]


def test_a_stride_between_is_refused(tmp_path):
    """Votes at stride 2 answer multiples of 2 only."""
    run = write_run(tmp_path, published=0, ablation={"kind": "column", "size": SIZE, "stride": 2})
    result = CliRunner().invoke(app, ["query", str(run), "--stride=3"])
    assert result.exit_code == 2
    assert "votes at stride 2, so name a multiple of 2" in result.stderr


def test_a_folder_without_a_run_is_refused(tmp_path):
    """The error says what a run is named like."""
    result = CliRunner().invoke(app, ["query", str(tmp_path), "--patch=1"])
    assert result.exit_code == 2
    assert "no run here" in result.stderr


@pytest.mark.parametrize("fault", [None, RuntimeError("within")])
def test_an_answers_file_leaves_nothing_on_a_full_disk(tmp_path, fault):
    """Closed and removed in every case, also where only the last bytes find no room."""
    (tmp_path / ".x.parquet.part").symlink_to("/dev/full")
    file = AnswersFile(tmp_path / "x.parquet")
    with pytest.raises(OSError, match="No space left"), file:
        if fault is not None:
            raise fault
    assert file._file.closed
    assert list(tmp_path.iterdir()) == []


def test_verify_names_a_run_of_an_output(tmp_path):
    """As query does."""
    run = write_run(tmp_path)
    assert f"OUTPUT/RUN_ID, such as {run}\n" in CliRunner().invoke(app, ["verify", str(run.parent)]).stderr
