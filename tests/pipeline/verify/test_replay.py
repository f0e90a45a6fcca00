"""Votes cast again: what contradicts the tar or the model is found."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.cli import app
from smoothcert.pipeline.verify import replay
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.tars import card_decoder
from smoothcert.workers.tars.card_decoder import CardDecoder
from tests.helpers import jobs
from tests.helpers.finished_runs import Edit, Row, file_of, finish, has, rows_of, settle, write
from tests.helpers.mask_runs import LiteralMasks
from tests.helpers.mask_runs import settle as settle_masks
from tests.helpers.tars import tar_of, write_tar
from tests.pipeline.verify.test_rows import labels_swapped, last_row_dropped, margin


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    return result.exit_code, result.stdout


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


def test_replay_uses_the_decoder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a GPU is refused before it reads a tar."""
    with monkeypatch.context() as patch:
        patch.setattr(card_decoder, "_card", lambda: CardDecoder(torch.device("cpu")))
        run = finish(tmp_path, preprocess={"resize": None, "crop": jobs.CROP, "decoder": "nvjpeg"})
        assert verify(str(run), replay=100, seed=7).problems == ()
    shutil.rmtree(tmp_path / "tars")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    card_decoder._card.cache_clear()
    with pytest.raises(RequestError, match=r"^preprocess\.decoder: nvjpeg needs a GPU"):
        verify(str(run), replay=100, seed=7)


def test_replay_of_a_sound_run_of_masks(any_masks_run: Path) -> None:
    """All votes that were cast, and whole images; those that an early exit left out are not counted."""
    report = verify(str(any_masks_run), replay=100, seed=7)
    rows = [row for number in (0, 1) for row in rows_of(file_of(any_masks_run, number)) if row["votes"] is not None]
    votes = sum(vote is not None for row in rows for vote in [*row["votes"], row["clean_prediction"]])
    assert report.problems == ()
    assert re.fullmatch(rf"replayed 11 images .* of {votes} votes are .*, 0 of them differ", report.notices[0])


@pytest.mark.parametrize("any_masks_run", ["early exit"], indirect=True)
def test_replay_finds_forged_votes_of_masks(any_masks_run: Path, tmp_path: Path) -> None:
    """A row that claims a certificate: the vote that contradicts it was cast, and is cast again."""
    run = Path(shutil.copytree(any_masks_run, tmp_path / any_masks_run.name))
    rows = rows_of(file_of(run))
    masks = LiteralMasks.of({"threat": 4, "per_axis": 2}, jobs.CROP)
    victim = next(number for number, row in enumerate(rows) if not row["recovery_certified"])
    label, found = rows[victim]["votes"][0], rows[victim]["votes"]
    row = rows[victim]
    settle_masks(row, masks, [label] * len(masks.votes))
    write(file_of(run), rows, renew=True)
    wrong = [number for number, vote in enumerate(found) if vote not in (None, label)]
    assert row["recovery_certified"]
    assert wrong
    expected = rf"^votes/00000-00.parquet row {victim} key '000{victim}' column votes: .{wrong[0]}"
    assert has(replayed(run), expected)


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


def image_far_away(rows: list[Row]) -> None:
    """A place in the tar that no file has."""
    rows[1]["image_offset"] = 2**62


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
        (image_far_away, "row 1 key '0001' column sha256: is not that of the bytes at image_offset"),
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


@pytest.mark.parametrize("column", ["votes", "margins", "image_offset"])
def test_rows_that_cannot_be_replayed_are_named_once(run: Path, column: str) -> None:
    """A row with a prediction and without what it takes to vote again."""
    rows = rows_of(file_of(run))
    rows[1][column] = None
    write(file_of(run), rows, renew=False)
    assert has(replayed(run), f"row 1 key '0001' column {column}: is null")


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


def test_an_unfinished_run_is_replayed(run: Path) -> None:
    """What is there can be voted on again, all or nothing of it; it stays unfinished."""
    (run / "_SUCCESS").unlink()
    file_of(run, 1).unlink()
    code, text = command(run, "--replay", 100, "--seed", 1)
    assert (code, "replayed 6 images" in text, "UNFINISHED" in text) == (1, True, True)
    file_of(run).unlink()
    code, text = command(run, "--replay", 100, "--seed", 1, "--allow-incomplete")
    assert (code, "replayed 0 images" in text, "UNFINISHED" in text) == (0, True, True)
