"""Photos are packed, certified, checked and asked; the names of their classes come along."""

import json
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.cli import app
from tests.helpers.finished_runs import finish_job, rows_of
from tests.helpers.jobs import CROP, write_job
from tests.helpers.photos import CLASSES, in_folders


def smoothcert(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return in_folders(tmp_path / "photos", 7, side=CROP)


def pairs(run: Path) -> set[tuple[str, int | None]]:
    return {(row["key"], row["label"]) for file in (run / "votes").iterdir() for row in rows_of(file)}


def test_from_class_folders_to_answers(tmp_path: Path, photos: Path, in_process: None) -> None:
    """plan counts by the index; run.json keeps the names, which query and report show; the run is all right."""
    smoothcert("pack", photos, tmp_path / "tars", "--shard-images", 4)
    job = write_job(tmp_path)
    planned = smoothcert("plan", job)
    assert "classes by the index" in planned and "notice: the index" not in planned
    run = finish_job(load_job(job))
    assert pairs(run) == {(f"{CLASSES[n % 3]}/{n:04d}", n % 3) for n in range(7)}
    assert json.loads((run / "run.json").read_text())["class_names"] == list(CLASSES)
    asked = smoothcert("query", run, "--patch", 2, "--by", "class")
    assert all(f"{number} ({name})" in asked for number, name in enumerate(CLASSES))
    answers = json.loads(smoothcert("query", run, "--patch", 2, "--by", "class", "--json"))
    assert [(one["class"], one.get("class_name")) for one in answers] == [(None, None), *enumerate(CLASSES)]
    smoothcert("report", run, "-o", tmp_path / "page")
    assert "1 (dog)" in (tmp_path / "page" / "report.html").read_text()
    assert "all right. Replayed 7 of 7 images" in smoothcert("verify", run, "--replay", 7)


def test_the_index_changes_no_run(tmp_path: Path, photos: Path, in_process: None) -> None:
    """The same tars without it are the same run, and names may come later than run.json."""
    smoothcert("pack", photos, tmp_path / "tars")
    job = load_job(write_job(tmp_path))
    with_index = make_plan(job).run
    index = (tmp_path / "tars" / "index.json").read_bytes()
    (tmp_path / "tars" / "index.json").unlink()
    run = finish_job(job)
    assert str(run) == with_index.url
    (tmp_path / "tars" / "index.json").write_bytes(index)
    assert make_plan(job).todo == ()
    assert "owl" not in smoothcert("query", run, "--patch", 2, "--by", "class")


def test_other_classes_than_the_network_s_are_a_notice(tmp_path: Path) -> None:
    """Numbers by alphabet are not the network's, and its answers would all be wrong."""
    in_folders(tmp_path / "photos", 4, ("dog", "owl"), side=CROP)
    smoothcert("pack", tmp_path / "photos", tmp_path / "tars")
    (notice,) = make_plan(load_job(write_job(tmp_path))).notices
    assert notice.startswith("the index of images.shards has 2 classes (dog, owl), the network 3: ")
    assert notice.endswith("pack again with --classes FILE, the names of the network's classes in order")
    (tmp_path / "names").write_text("\n".join(CLASSES))
    smoothcert("pack", tmp_path / "photos", tmp_path / "again", "--classes", tmp_path / "names")
    plan = make_plan(load_job(write_job(tmp_path, images={"shards": "again"})))
    assert (plan.notices, plan.run.class_names) == ((), CLASSES)


@pytest.mark.parametrize("form", ["file", "list"])
def test_labels_may_be_names(tmp_path: Path, photos: Path, form: str, in_process: None) -> None:
    """`images.label_names` numbers them; its content is in the identity, its place is not."""
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for path in sorted(photos.rglob("*.jpg")):
            (path.parent / "label").write_text(path.parent.name)
            tar.add(path, f"{path.stem}.jpg")
            tar.add(path.parent / "label", f"{path.stem}.cls")
    names = ["owl", "cat", "dog"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    label_names = "names.txt" if form == "file" else names
    run = finish_job(load_job(write_job(tmp_path, images={"shards": "tars", "label_names": label_names})))
    assert pairs(run) == {(f"{n:04d}", names.index(CLASSES[n % 3])) for n in range(7)}
    record = json.loads((run / "run.json").read_text())
    assert record["class_names"] == record["job"]["images"]["label_names"] == names
    (tmp_path / "moved.txt").write_text(json.dumps(names))
    moved = write_job(tmp_path, images={"shards": "tars", "label_names": "moved.txt"})
    assert make_plan(load_job(moved)).run.url == str(run)
    (tmp_path / "names.txt").unlink()
    assert "all right. Replayed 7 of 7 images" in smoothcert("verify", run, "--replay", 7)
    other = write_job(tmp_path, images={"shards": "tars", "label_names": names[::-1]})
    assert make_plan(load_job(other)).run.url != str(run)


def test_names_of_other_classes_are_refused(tmp_path: Path, photos: Path) -> None:
    """ImageNet's for a network of three classes."""
    smoothcert("pack", photos, tmp_path / "tars")
    job = load_job(write_job(tmp_path, images={"shards": "tars", "label_names": "imagenet-1k"}))
    with pytest.raises(RequestError, match=r"images.label_names: imagenet-1k has 1,000 names, but the network has 3"):
        make_plan(job)
