"""The whole way: job file to Parquet, with bad input, interruptions and reruns; through Ray where Ray matters."""

import hashlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.check import verify
from tests.helpers import jobs, tars
from tests.helpers.actors_here import actors_here
from tests.helpers.faults import before_shards, injection
from tests.helpers.house import HOUSE

pytestmark = pytest.mark.usefixtures("ray_here")


def run(job_file, *overrides, capsys=None):
    """Exit code and JSON of a run."""
    code = certify_all(load_job(job_file, overrides), json_to=sys.stdout)
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def rows_of(path):
    """All rows of a run by (shard, key)."""
    files = sorted(Path(path, "votes").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def smoothcert(*arguments):
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, HOUSE / "pipeline" / "certify_all.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=200,
    )


def test_every_image_is_a_row_with_votes(tmp_path, capsys):
    """Rows are the images of the tars in order, votes and figures fit, _SUCCESS is there."""
    jobs.write_shards(tmp_path)
    code, result = run(jobs.write_job(tmp_path), capsys=capsys)
    rows = rows_of(result["path"])
    assert (code, result["complete"], result["partial"], result["images"]) == (0, True, False, 15)
    assert [row["key"] for row in rows] == [f"{number:04d}" for number in range(15)]
    assert [row["label"] for row in rows] == [number % jobs.CLASSES for number in range(15)]
    for row in rows:
        counts = np.bincount(row["votes"], minlength=jobs.CLASSES)
        assert row["prediction"] == counts.argmax()
        assert row["count"] == counts.max()
        tar = (tmp_path / "tars" / row["shard"]).read_bytes()
        image = tar[row["image_offset"] : row["image_offset"] + row["image_bytes"]]
        assert image == tars.png(jobs.CROP, jobs.CROP, seed=int(row["key"]))
    right = [row["prediction"] == row["label"] for row in rows]
    assert result["smoothed_accuracy"] == pytest.approx(np.mean(right))
    exact, margin = (
        np.mean([ok and row[column] >= 2 for ok, row in zip(right, rows, strict=True)])
        for column in ("max_certified_patch", "max_margin_certified_patch")
    )
    assert result["certified"][1] == {"patch": [2, 2], "exact": pytest.approx(exact), "margin": pytest.approx(margin)}
    assert json.loads(Path(result["path"], "_SUCCESS").read_text())["rows"] == 15
    (diary,) = Path(result["path"], "drivers").iterdir()
    *entries, driver = map(json.loads, diary.read_text().splitlines())
    assert driver["images"] == 15
    assert sorted((entry["shard"], entry["outcome"], entry["statuses"]["ok"]) for entry in entries) == [
        (f"{number:02d}.tar", "published", 5) for number in range(3)
    ]
    for entry in entries:
        assert entry["file_sha256"] == hashlib.sha256(Path(result["path"], entry["file"]).read_bytes()).hexdigest()


def test_votes_do_not_depend_on_batches_actors_or_shards(tmp_path, capsys):
    """Other batches, actors and shards give the same votes; a repeat gives the same bits."""
    jobs.write_shards(tmp_path)
    job = jobs.write_job(tmp_path)
    (tmp_path / "one").mkdir()
    tars.write_tar(tmp_path / "one", tars.tar_of(reversed_samples()), "00.tar")
    two_actors = "execution={actors: 2, images_per_batch: 3, cpus_per_actor: 1}"
    two_threads = "execution={actors: 1, images_per_batch: 7, cpus_per_actor: 2}"
    spread = run(job, f"output={tmp_path}/spread", two_actors, capsys=capsys)
    with actors_here():
        reference = rows_of(run(job, capsys=capsys)[1]["path"])
        again = rows_of(run(job, f"output={tmp_path}/again", capsys=capsys)[1]["path"])
        threaded = run(job, f"output={tmp_path}/threaded", two_threads, capsys=capsys)
        joined = run(job, f"images.shards={tmp_path}/one", capsys=capsys)
    assert again == reference
    by_key = {row["key"]: row for row in reference}
    for row in [row for _, result in (spread, threaded, joined) for row in rows_of(result["path"])]:
        margins, expected = np.array(row["margins"]), np.array(by_key[row["key"]]["margins"])
        np.testing.assert_allclose(margins, expected, atol=1e-4)
        clear = expected > 1e-4
        assert (np.array(row["votes"]) == np.array(by_key[row["key"]]["votes"]))[clear].all()


def reversed_samples():
    return [member for number in reversed(range(15)) for member in jobs.samples(number, 1)]


@pytest.mark.usefixtures("in_process")
def test_a_bad_image_is_a_row_with_its_reason(tmp_path, capsys):
    """Images that cannot be judged stay in the table; a bad label keeps its votes."""
    (tmp_path / "tars").mkdir()
    good = tars.png(jobs.CROP, jobs.CROP)
    members = [
        ("a.jpg", b"no jpeg"),
        ("a.cls", b"0"),
        ("b.png", tars.png(1, 1)),
        ("b.cls", b"0"),
        ("c.png", good),
        ("d.png", good),
        ("d.cls", b"cat"),
        ("e.png", good),
        ("e.cls", b"3"),
        ("f.png", good),
        ("f.cls", b"2"),
    ]
    tars.write_tar(tmp_path / "tars", tars.tar_of(members))
    code, result = run(jobs.write_job(tmp_path), capsys=capsys)
    rows = rows_of(result["path"])
    statuses = ["decode_error", "size_error", "label_error", "label_error", "label_error", "ok"]
    assert [row["status"] for row in rows] == statuses
    assert [row["votes"] is None for row in rows] == [True, True, False, False, False, False]
    assert all((row["error"] is None) == (row["status"] == "ok") for row in rows)
    assert (code, result["complete"]) == (0, True)
    code, _ = run(jobs.write_job(tmp_path, max_error_share=0.01), capsys=capsys)
    assert code == 1


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("label", "says"),
    [
        (
            lambda number: None,
            "12 of the first 12 images of 00.tar, 01.tar have no usable label, the first is 0000: no",
        ),
        (lambda number: b"n01440764", "12 of the first 12 images of 00.tar, 01.tar have no usable label"),
        (lambda number: str(number + 400).encode(), "label 400 is not one of the 3 classes (0 to 2)"),
        (lambda number: str(number % 3 + 1).encode(), "labels seem to count from 1"),
    ],
)
def test_labels_that_are_none_stop_the_run_before_the_fleet(label, says, tmp_path):
    """Whatever share of errors the job allows: the request is wrong, and nothing is published."""
    _write_labelled(tmp_path, label)
    with pytest.raises(RequestError, match=re.escape(says)):
        certify_all(load_job(jobs.write_job(tmp_path)))
    assert not list((tmp_path / "runs").glob("*/votes/*"))


@pytest.mark.usefixtures("in_process")
def test_labels_from_1_are_classes_where_the_job_says_so(tmp_path, capsys):
    """With first_label 1 the rows are those of labels from 0."""
    _write_labelled(tmp_path, lambda number: str(number % 3 + 1).encode())
    job = jobs.write_job(tmp_path, images={"shards": "tars", "first_label": 1})
    code, result = run(job, capsys=capsys)
    assert (code, result["bad_labels"]) == (0, 0)
    assert [row["label"] for row in rows_of(result["path"])] == [number % 3 for number in range(12)]


@pytest.mark.usefixtures("in_process")
def test_bad_labels_count_as_images_without_votes_do(tmp_path, capsys):
    """In a labelled job: three of twelve are more than a fifth; the table and the JSON say how many and the first."""
    _write_labelled(tmp_path, lambda number: b"cat" if number in (4, 5, 9) else b"0")
    for share, expected in ((0.2, 1), (0.25, 0)):
        code, result = run(jobs.write_job(tmp_path, max_error_share=share), capsys=capsys)
        assert code == expected
    first = "0004: .cls is no class index: 'cat' is no whole number"
    assert (result["bad_labels"], result["first_bad_label"]) == (3, first)
    assert certify_all(load_job(jobs.write_job(tmp_path, max_error_share=0.2))) == 1
    printed = capsys.readouterr().out
    assert re.search(r"bad labels +│ +3 │ +0004: \.cls is no class index", printed)
    assert "failed: 3 of 12 images have no usable label, more than max_error_share (0.2) allows" in printed
    unlabelled = jobs.write_job(tmp_path, max_error_share=0, images={"shards": "tars", "label": None})
    assert run(unlabelled, capsys=capsys)[0] == 0


@pytest.mark.usefixtures("in_process")
def test_an_accuracy_without_labels_is_no_number(tmp_path, capsys):
    """A dash in the table and in query, null in JSON; never 0 %. verify agrees."""
    _write_labelled(tmp_path, lambda number: None, images=2)  # too few for the canary
    job = jobs.write_job(tmp_path, patches=[1])
    _, result = run(job, capsys=capsys)
    assert (result["clean_accuracy"], result["smoothed_accuracy"]) == (None, None)
    assert result["certified"] == [{"patch": [1, 1], "exact": None, "margin": None}]
    certify_all(load_job(job))
    printed = capsys.readouterr().out
    assert re.search(r"smoothed accuracy +│ +- │", printed)
    assert re.search(r"patch 1 x 1 +│ +- │ +- │", printed)
    asked = CliRunner().invoke(app, ["query", result["path"], "--patch", "1", "--json"])
    assert [(one["correct"], one["certified_correct"]) for one in json.loads(asked.stdout)] == [(None, None)]
    asked = CliRunner().invoke(app, ["query", result["path"], "--patch", "1"])
    assert " 0.00 %" not in asked.stdout.replace("certified 0.00 %", "")
    assert verify(result["path"]).problems == ()


def _write_labelled(folder, label, images=6):
    """Two tars of so many images; `label` gives the bytes of each number's label, or None."""
    (folder / "tars").mkdir()
    for shard in range(2):
        members = []
        for number in range(shard * images, (shard + 1) * images):
            members.append((f"{number:04d}.png", tars.png(jobs.CROP, jobs.CROP, seed=number)))
            members += [] if label(number) is None else [(f"{number:04d}.cls", label(number))]
        tars.write_tar(folder / "tars", tars.tar_of(members), f"{shard:02d}.tar")


@pytest.mark.usefixtures("in_process")
def test_what_the_reader_of_the_table_must_know(tmp_path, capsys):
    """Rotated images, skipped files of operating systems, samples whose image has another suffix, and a mean that is
    not timm's: each is said once.
    """
    (tmp_path / "tars").mkdir()
    for shard in range(2):
        members = [("._x.png", b"\0\5\x16\7"), (".DS_Store", b"x"), (f"y{shard}.bmp", b"x"), (f"y{shard}.cls", b"1")]
        for number in range(3):
            file = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6 if number else 1
            Image.open(io.BytesIO(tars.png(jobs.CROP, jobs.CROP, seed=number))).save(file, "PNG", exif=exif)
            members += [(f"{shard}{number}.png", file.getvalue()), (f"{shard}{number}.cls", b"1")]
        tars.write_tar(tmp_path / "tars", tars.tar_of(members), f"{shard:02d}.tar")
    stored = jobs.write_job(tmp_path)
    assert certify_all(load_job(stored)) == 0
    printed = capsys.readouterr().out
    assert re.search(r"rotated by EXIF +│ +4 │ +taken as stored", printed)
    assert printed.count("notice: 4 files that operating systems add to folders") == 1
    assert printed.count("notice: 2 samples in the tars have no member that images.image names") == 1
    (success,) = (tmp_path / "runs").glob("*/_SUCCESS")
    assert json.loads(success.read_text()).items() >= {"system_members": 4, "samples_without_image": 2}.items()
    assert printed.count("notice: preprocess: mean [0.485, 0.456, 0.406]") == 1
    votes = {orient: rows_of(run(stored, f"preprocess.orient={orient}", capsys=capsys)[1]["path"]) for orient in (0, 1)}
    for plain, turned in zip(votes[0], votes[1], strict=True):
        assert (plain["margins"] == turned["margins"]) == plain["key"].endswith("0")


def test_a_bad_shard_fails_by_name_and_the_rest_goes_on(tmp_path, capsys):
    """A tar that is not whole has no file; the run says which, ends with 1 and has no _SUCCESS."""
    jobs.write_shards(tmp_path, shards=1)
    whole = tars.tar_of(jobs.samples(50, 2))
    first = len(tars.member("0050.png", tars.png(jobs.CROP, jobs.CROP, seed=50)))
    bad = {
        "truncated_inside.tar": whole[: first + 520],
        "truncated_between.tar": whole[:first],
        "two.tar": whole + whole,
        "damaged.tar": whole[:first] + b"x" * 512 + whole[first + 512 :],
        "empty.tar": b"",
        "text.tar": b"not a tar at all\n" * 50,
        "no_image.tar": tars.tar_of([("a.txt", b"x")]),
    }
    for name, content in bad.items():
        tars.write_tar(tmp_path / "tars", content, name)
    code = certify_all(load_job(jobs.write_job(tmp_path)))
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("failed: ")]
    assert code == 1
    assert len(failed) == len(bad)
    for name in bad:
        assert sum(f"shard {name}: " in line for line in failed) == 1
    path = Path(lines[-1])
    assert [file.name for file in (path / "votes").iterdir()] == ["00000-00.parquet"]
    assert not (path / "_SUCCESS").exists()


@pytest.mark.usefixtures("in_process")
def test_pandas_reads_the_folder_that_is_printed(tmp_path, capsys):
    """All rows of all shards; a run without files names no folder."""
    jobs.write_shards(tmp_path)
    (tmp_path / "empty").mkdir()
    tars.write_tar(tmp_path / "empty", b"", "00.tar")
    assert certify_all(load_job(jobs.write_job(tmp_path))) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rows, as Parquet: ")]
    frame = pd.read_parquet(line.removeprefix("rows, as Parquet: "))
    assert [*zip(frame["shard"], frame["key"], strict=True)] == [
        (f"{number // 5:02d}.tar", f"{number:04d}") for number in range(15)
    ]
    assert certify_all(load_job(jobs.write_job(tmp_path), [f"images.shards={tmp_path}/empty"])) == 1
    assert "rows, as Parquet" not in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
def test_json_names_the_shards_that_failed(tmp_path, capsys):
    """With the reasons that the lines `failed:` give; a run whose shards are all done has none."""
    jobs.write_shards(tmp_path, shards=1)
    tars.write_tar(tmp_path / "tars", b"", "empty.tar")
    code = certify_all(load_job(jobs.write_job(tmp_path)), json_to=sys.stdout)
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (code, result["complete"], result["shards"], result["published"]) == (1, False, 2, 1)
    (failure,) = result["failures"]
    assert failure["shard"] == "empty.tar"
    assert f"failed: {failure['reason']}\n" in err
    assert result["faults"] == []
    code, result = run(jobs.write_job(tmp_path), f"images.shards={tmp_path}/tars/00.tar", capsys=capsys)
    assert (code, result["failures"], result["complete"]) == (0, [], True)


def _cpu_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.usefixtures("in_process")
def test_a_finished_run_is_not_done_again(tmp_path, capsys):
    """The second run of a finished job changes no file, says so, and takes under three seconds of a CPU."""
    jobs.write_shards(tmp_path, shards=1)
    job = jobs.write_job(tmp_path)
    _, result = run(job, capsys=capsys)
    before = {path: path.stat().st_mtime_ns for path in Path(result["path"]).rglob("*")}
    start = _cpu_seconds()
    second = smoothcert(job)
    assert _cpu_seconds() - start < 3
    assert (second.returncode, second.stderr) == (0, "")
    assert "nothing to do" in second.stdout
    assert second.stdout.splitlines()[-1] == result["path"]
    assert before == {path: path.stat().st_mtime_ns for path in Path(result["path"]).rglob("*")}


@pytest.mark.usefixtures("in_process")
def test_other_data_under_the_same_names_is_refused(tmp_path, capsys):
    """Same names and sizes with other labels: an error that names the shard and images.version."""
    jobs.write_shards(tmp_path, shards=1)
    job = jobs.write_job(tmp_path)
    run(job, capsys=capsys)
    members = [(name, b"1" if name.endswith("cls") else content) for name, content in jobs.samples(0, 5)]
    tars.write_tar(tmp_path / "tars", tars.tar_of(members), "00.tar")
    with pytest.raises(RequestError, match=r"00\.tar.*images\.version"):
        certify_all(load_job(job))
    assert run(job, "images.version=relabelled", capsys=capsys)[0] == 0


@pytest.mark.usefixtures("in_process")
def test_limit_marks_the_run_partial(tmp_path, capsys):
    """A limit takes the first images; one that is not reached is the run without limit."""
    jobs.write_shards(tmp_path)
    job = jobs.write_job(tmp_path)
    _, part = run(job, "images.limit=7", capsys=capsys)
    assert (part["partial"], part["images"]) == (True, 7)
    assert [row["key"] for row in rows_of(part["path"])] == [f"{number:04d}" for number in range(7)]
    _, whole = run(job, capsys=capsys)
    _, beyond = run(job, "images.limit=15", capsys=capsys)
    assert whole["run_id"] == beyond["run_id"] != part["run_id"]


@pytest.mark.usefixtures("in_process")
def test_weights_that_give_nan(tmp_path, capsys):
    """With many images the run stops before the fleet; with few each is a model_error."""
    jobs.write_shards(tmp_path, shards=1, images=9)
    jobs.write_weights(tmp_path / "weights.pt", fill=float("nan"))
    job = jobs.write_job(tmp_path)
    with pytest.raises(RequestError, match="9 x model_error"):
        certify_all(load_job(job))
    _, result = run(job, "images.limit=3", capsys=capsys)
    assert result["status"] == {"model_error": 3}
    assert all(row["votes"] is None and row["prediction"] is None for row in rows_of(result["path"]))


def _pickle_with_code(path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {path}.ran",)

    path.write_bytes(pickle.dumps({"model": Evil()}))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("break_it", "overrides", "says"),
    [
        (lambda f: jobs.write_weights(f / "weights.pt", classes=5), [], "does not fit"),
        (lambda f: None, ["model.options.depth=2"], "does not fit"),
        (lambda f: None, ["model.architecture=vit_tinny_patch16_224"], "did you mean"),
        (lambda f: None, ["model.architecture=resnet18", "model.options={}"], "VisionTransformer|cannot build"),
        (lambda f: torch.save({"a": 1}, f / "weights.pt"), [], "does not fit"),
        (lambda f: (f / "weights.pt").write_bytes(b"no weights"), [], "neither safetensors nor"),
        (lambda f: _pickle_with_code(f / "weights.pt"), [], "could run code"),
        (lambda f: (f / "weights.pt").unlink(), [], "does not exist"),
        (lambda f: (f / "runs").write_text("a file"), [], "output: "),
        (lambda f: None, ["execution.cpus_per_actor=1000"], "room for 0"),
        (lambda f: None, ["execution.gpus_per_actor=64"], "room for 0"),
        (lambda f: None, ["images.shards=nowhere-{0..3}.tar"], "does not exist"),
        (lambda f: None, ["images.shards=nowhere-*.tar"], "matches nothing"),
        (lambda f: None, ["images.shards=nowhere"], "nowhere does not exist"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, break_it, overrides, says):
    """What cannot work is refused with exit code 2 and one line, and nothing of a checkpoint is run."""
    check_refused(tmp_path, break_it, overrides, says)


def test_what_an_actor_of_ray_refuses_is_one_line_too(tmp_path):
    """Though Ray sends the error with a traceback."""
    check_refused(tmp_path, lambda f: jobs.write_weights(f / "weights.pt", classes=5), [], "does not fit")


def check_refused(tmp_path, break_it, overrides, says):
    jobs.write_shards(tmp_path, shards=1)
    job = jobs.write_job(tmp_path)
    break_it(tmp_path)
    with pytest.raises(RequestError, match=says) as error:
        certify_all(load_job(job, overrides))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "weights.pt.ran").exists()


def driver_of(job, **streams):
    """A driver in a process of its own."""
    return subprocess.Popen(
        [sys.executable, HOUSE / "pipeline" / "certify_all.py", job],
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True} | streams,
    )


def wait_for_published(folder, files, driver):
    """Until run.json and so many files of votes are there, or the driver ended."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and driver.poll() is None:
        if len(list(folder.glob("runs/*/votes/*"))) >= files and list(folder.glob("runs/*/run.json")):
            return
        time.sleep(0.005)


@pytest.mark.parametrize("moments", [(1,), pytest.param((0, 1, 4), marks=pytest.mark.slow)])
def test_killing_the_driver_loses_nothing(moments, tmp_path, capsys):
    """SIGKILL of the driver once some shards are published, then the same command: the rows of an undisturbed run."""
    jobs.write_shards(tmp_path, shards=8, images=12)
    job = jobs.write_job(tmp_path)
    with actors_here():
        reference = rows_of(run(job, f"output={tmp_path}/undisturbed", capsys=capsys)[1]["path"])
    for published in moments:
        driver = driver_of(job)
        wait_for_published(tmp_path, published, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    with actors_here():
        code, result = run(job, capsys=capsys)
    assert (code, result["complete"]) == (0, True)
    assert rows_of(result["path"]) == reference


def test_an_interrupt_ends_cleanly(tmp_path, capsys):
    """Ctrl-C ends with 130, no traceback and the command that goes on; what was published stays."""
    jobs.write_shards(tmp_path, shards=20, images=12)
    job = jobs.write_job(tmp_path)
    slowly = injection(tmp_path, before_shards("time.sleep(1)"))  # so that there is something to interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background, and so by the driver
    driver = driver_of(job, stderr=subprocess.PIPE, env=os.environ | slowly)
    wait_for_published(tmp_path, 1, driver)
    driver.send_signal(signal.SIGINT)
    _, messages = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "Traceback" not in messages
    assert f"go on with: {HOUSE}/pipeline/certify_all.py {job}" in messages
    assert len(list(tmp_path.glob("runs/*/votes/*"))) >= 1
    with actors_here():
        assert run(job, capsys=capsys)[1]["images"] == 240


@pytest.mark.usefixtures("in_process")
def test_damage_after_the_end_is_found(tmp_path, capsys):
    """A published file that changed after _SUCCESS is an error, not a table."""
    jobs.write_shards(tmp_path, shards=2)
    job = jobs.write_job(tmp_path)
    _, result = run(job, capsys=capsys)
    file = next(Path(result["path"], "votes").iterdir())
    table, described = pq.read_table(file), io.BytesIO()
    pq.write_table(table.slice(0, 3), described)
    file.write_bytes(described.getvalue())
    with pytest.raises(RunError, match="its SHA-256 is not the one in _SUCCESS"):
        certify_all(load_job(job))
