"""A received run is replayed with tars and a checkpoint that lie in other places."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify.check import verify
from smoothcert.pipeline.verify.record import open_run
from smoothcert.pipeline.verify.sources import local_tar, tars_below
from smoothcert.workers.storage.folder_store import FolderStore
from smoothcert.workers.storage.store import sha256_of
from tests.helpers import jobs
from tests.helpers.finished_runs import file_of, finish, has, renew_hash, rows_of, settle, write
from tests.helpers.web_server import WebServer

REPLAY = ("--replay", 100, "--seed", 7)


class Received(NamedTuple):
    """A run whose tars and weights are no longer where run.json says."""

    run: Path
    images: Path
    weights: Path


@pytest.fixture
def received(tmp_path: Path) -> Received:
    """The tars lie in two subfolders, the weights have another name."""
    maker, here = tmp_path / "maker", tmp_path / "here"
    maker.mkdir()
    run = finish(maker)
    for name, folder in (("00.tar", here / "disk" / "val"), ("01.tar", here / "other")):
        folder.mkdir(parents=True)
        (maker / "tars" / name).rename(folder / name)
    (maker / "weights.pt").rename(here / "received.pt")
    return Received(Path(shutil.move(run, tmp_path / "run")), here, here / "received.pt")


def smoothcert(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return result.exit_code, result.output


def everything(received: Received) -> tuple[object, ...]:
    return received.run, *REPLAY, "--images", received.images, "--checkpoint", received.weights


def test_a_received_run_is_replayed(received: Received) -> None:
    """The verdict says what that proves, as text and as JSON. All 11 images with votes: none can be missed."""
    code, text = smoothcert(*everything(received))
    assert code == 0
    assert text.splitlines()[-1] == (
        "13 rows in 2 files: all right. Replayed 11 of 11 images with votes: if 9.09 % of them (1) were forged, this "
        "would have found one with 100.00 % chance"
    )
    found = json.loads(smoothcert(*everything(received), "--json")[1])["replay"]
    assert found == {
        "images": 11,
        "chosen": 11,
        "replayed": 11,
        "seed": 7,
        "one_percent": 1,
        "found_one_percent": 1.0,
        "fewest_found_95": 1,
    }


def test_tars_and_checkpoint_may_lie_on_a_web_server(received: Received, web: WebServer) -> None:
    """Its folders cannot be listed, but the names of the tars are known. A missing one is named."""
    for file in (*received.images.rglob("*.tar"), received.weights):
        web.files[f"/d/{file.name}"] = file.read_bytes()
    there = (received.run, *REPLAY, "--images", f"{web.url}/d", "--checkpoint", f"{web.url}/d/received.pt")
    code, text = smoothcert(*there)
    assert code == 0, text
    assert "Replayed 11 of 11 images" in text
    del web.files["/d/01.tar"]
    code, text = smoothcert(*there)
    assert code == 2
    assert f"--images: {web.url}/d has no 01.tar of " in text


def test_a_part_of_the_images_proves_less(received: Received) -> None:
    """By hand: a choice of 4 of 11 misses one forged image with chance 7/11. It misses all of five in 15 of 330
    choices (under 5 %), and all of four in 35 of 330."""
    code, text = smoothcert(*everything(received)[:2], 4, *everything(received)[3:])
    assert code == 0
    assert text.splitlines()[-1].endswith(
        "Replayed 4 of 11 images with votes: if 9.09 % of them (1) were forged, this would have found one with 36.36 % "
        "chance, if 5 were, with at least 95 %"
    )


def test_images_that_cannot_be_replayed_prove_nothing(received: Received) -> None:
    """A tar of the same name and size with other bytes is a problem, and its images do not count."""
    tar = received.images / "other" / "01.tar"
    tar.write_bytes(tar.read_bytes().replace(b"0006", b"1006"))
    code, text = smoothcert(*everything(received))
    assert code == 1
    assert "problem: votes/00001-01.parquet: is of a tar with SHA-256 " in text
    assert text.splitlines()[-1].endswith(
        "Replayed 6 of 11 chosen images, of 11 images with votes: this proves nothing more"
    )


def test_forged_votes_are_found_in_received_runs(received: Received) -> None:
    """The same comparison as at the recorded places."""
    rows = rows_of(file_of(received.run))
    settle(rows[1], [(vote + 1) % jobs.CLASSES for vote in rows[1]["votes"]])
    write(file_of(received.run), rows, renew=True)
    renew_hash(file_of(received.run))
    found = verify(str(received.run), replay=100, seed=1, images=str(received.images), checkpoint=str(received.weights))
    assert has(found.problems, "^votes/00000-00.parquet row 1 key '0001' column votes: ")


def test_one_of_the_two_may_be_where_the_run_says(finished: Path, received: Received) -> None:
    """--images alone, and --checkpoint alone; `finished` is the same run with its data."""
    for options in (("--images", received.images), ("--checkpoint", received.weights)):
        assert smoothcert(finished, *REPLAY, *options)[0] == 0


def test_a_tar_is_found_by_name_size_and_hash(received: Received) -> None:
    """Other files of its name, of another size or with other bytes, are not taken; links that lead back do no harm."""
    whole = (received.images / "disk" / "val" / "00.tar").read_bytes()
    for folder, content in (("a", whole[:-512]), ("b", whole[:-1] + b"x"), ("z", whole[:-1] + b"y")):
        (received.images / folder).mkdir()
        (received.images / folder / "00.tar").write_bytes(content)
    (received.images / "a" / "back").symlink_to(received.images)
    run, store = open_run(str(received.run), Storage()), FolderStore()
    (urls,) = tars_below(run, ["votes/00000-00.parquet"], str(received.images), store).values()
    folders = {str(Path(url).parent.relative_to(received.images)) for url in urls}
    assert folders == {"b", "disk/val", "z"}
    sha256 = sha256_of(received.images / "disk" / "val" / "00.tar")
    with local_tar(urls, sha256, store) as tar:
        assert (tar.path.parent.name, tar.sha256) == ("val", sha256)
    assert smoothcert(*everything(received))[0] == 0


def test_what_is_not_found_is_one_line(received: Received, tmp_path: Path) -> None:
    """Which name and size is missing, and what is there instead; exit code 2."""
    tar = received.images / "disk" / "val" / "00.tar"
    size, empty = tar.stat().st_size, tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no tar")
    tar.write_bytes(tar.read_bytes() + bytes(512))
    for options, expected in (
        (
            ("--images", received.images),
            f"--images: {received.images} has no 00.tar of {size:,} bytes; {tar} has {size + 512:,} bytes; name "
            "the folder that holds the tars of the run",
        ),
        (
            ("--images", received.images / "other"),
            f"--images: {received.images / 'other'} has no 00.tar of {size:,} bytes; it holds 01.tar; name the ",
        ),
        (
            ("--images", empty),
            f"--images: {empty} has no 00.tar of {size:,} bytes (nor 1 more of 2 tars to replay); it holds no tar; ",
        ),
        (("--images", tmp_path / "her"), f"--images: {tmp_path / 'her'} is not a folder; {tmp_path}/ holds here"),
        (("--images", tar), f"--images: {tar} is not a folder; "),
        ((), r"00.tar is gone, so votes cannot be replayed; restore it, name the folder that holds it now (--images)"),
    ):
        code, text = smoothcert(received.run, *REPLAY, *options, "--checkpoint", received.weights)
        assert (code, text.count("\n")) == (2, 1)
        assert expected in text


def test_a_checkpoint_that_is_not_found_is_one_line(received: Received, tmp_path: Path) -> None:
    """What the run had, and what is there instead."""
    other = jobs.write_weights(tmp_path / "other.pt", fill=0.5)
    had = f"the checkpoint of the run was {tmp_path / 'maker' / 'weights.pt'}"
    for options, expected in (
        (
            ("--checkpoint", received.images / "recieved.pt"),
            f"--checkpoint: {received.images / 'recieved.pt'} does not exist; {had}; {received.images}/ holds",
        ),
        (
            ("--checkpoint", received.images),
            f"--checkpoint: {received.images} is a folder; {had}; name {received.weights}",
        ),
        (
            ("--checkpoint", other),
            f"{other} is not the checkpoint of the run: it has SHA-256 {sha256_of(other)}, the run ",
        ),
        (
            (),
            "weights.pt is gone, so votes cannot be replayed; restore it, name the file that holds it now "
            "(--checkpoint), or leave --replay out",
        ),
    ):
        code, text = smoothcert(received.run, *REPLAY, "--images", received.images, *options)
        assert (code, text.count("\n")) == (2, 1)
        assert expected in text


@pytest.mark.parametrize("option", ["--images", "--checkpoint", "--seed"])
def test_options_of_a_replay_need_one(finished: Path, option: str) -> None:
    """They would be without effect."""
    code, text = smoothcert(finished, option, "1")
    assert code == 2
    assert re.search(f"{option}: .* of --replay; name how many, such as --replay 100", text)


def test_folders_that_cannot_be_read_are_named(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if a tar is missing, for it may lie there. (Tests may run as root, who can read every folder.)"""

    class Closed(FolderStore):
        def listing(self, folder: str, most: int | None = None):
            if folder.endswith("lost+found"):
                raise RequestError("refused")
            return super().listing(folder, most)

    (received.images / "lost+found").mkdir()
    run, store = open_run(str(received.run), Storage()), Closed()
    assert tars_below(run, ["votes/00001-01.parquet"], str(received.images), store)
    (received.images / "other" / "01.tar").unlink()
    with pytest.raises(RequestError, match=r"it holds 00\.tar, and .*lost\+found cannot be read; name the folder"):
        tars_below(run, ["votes/00001-01.parquet"], str(received.images), store)
