"""`smoothcert attack RUN --patch`, from the command line to table, JSON and exit code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.ablations.masks import Covers, MaskSet
from smoothcert.workers.certificates import double_masking as double_masking_rules
from smoothcert.workers.certificates import rules
from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.studies.study import studies_of
from tests.helpers import jobs
from tests.helpers.commands import check_refused, smoothcert
from tests.helpers.finished_runs import finish_job
from tests.helpers.masks import double_masking

pytest.importorskip("pyautoattack")
pytestmark = pytest.mark.usefixtures("in_process")
CHEAP = ("--places", 1, "--random-places", 1, "--steps", 4, "--queries", 4)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run on fifteen images."""
    jobs.write_shards(tmp_path)
    return finish_job(load_job(jobs.write_job(tmp_path)))


def answer(*arguments: object) -> dict[str, Any]:
    done = smoothcert("attack", *arguments, "--json")
    assert done.exit_code == 0, done.output
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def rows(run: Path) -> list[dict[str, Any]]:
    (study,) = studies_of(open_run(run))
    found: list[dict[str, Any]] = study.rows().to_pylist()
    return found


def test_the_answer_counts_the_rows(run: Path) -> None:
    value = answer(run, "--patch", "8x6", *CHEAP, "--only", "all")
    found = rows(run)
    assert (value["attacked"], value["candidates"], value["complete"]) == (15, 15, True)
    fell = [row for row in found if row["fell"]]
    assert value["fell"] == len(fell) == sum(value["by_attack"].values())
    assert value["forwards_per_image"] == sum(row["forwards"] for row in found) / 15
    bracket = value["bracket"]
    right = [row for row in found if row["label"] == row["prediction"]]
    uncertified = [row for row in right if row["slack"] < 0]
    assert (bracket["right"], bracket["attacked"]) == (len(right), len(uncertified))
    assert bracket["fell"] == sum(row["fell"] for row in uncertified)
    upper = (len(right) - bracket["fell"]) / 15
    assert bracket["accuracy_under_attack"] == pytest.approx({"share": upper, "low": upper, "high": upper})
    assert bracket["certified_accuracy"] <= upper
    assert value["problems"] == []


def test_only_chooses_by_certificate(run: Path) -> None:
    """Against patches of one pixel some images are certified, and none of these falls."""
    answer(run, "--patch", "1", *CHEAP, "--only", "certified")
    found = rows(run)
    assert found
    assert all(row["slack"] >= 0 and not row["fell"] for row in found)


def test_people_read_a_table(run: Path) -> None:
    done = smoothcert("attack", run, "--patch", 8, *CHEAP, "--limit", 6)
    assert done.exit_code == 0
    for line in ("8 x 8 patches on run", "uncertified images attacked", "certified accuracy", "accuracy under attack"):
        assert line in done.stdout


def test_a_certified_image_that_falls_is_a_failure(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the rule were unsound: it certifies everything."""
    found = answer(run, "--patch", 8, *CHEAP, "--only", "all")["fell"]
    assert found
    real = rules._answer

    def generous(*arguments: Any) -> rules.Answer:
        return real(*arguments)._replace(slack=abs(real(*arguments).slack))

    monkeypatch.setattr(rules, "_answer", generous)
    done = smoothcert("attack", run, "--patch", 8, *CHEAP, "--only", "all")
    assert done.exit_code == 1
    assert f"failed: {found} certified images fell to a 8 x 8 patch (" in done.output
    assert "a certificate or the engine is wrong" in done.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--patch", "17"], "patch 17 x 17: must be 1 x 1 to 16 x 16"),
        (["--patch", "4", "--limit", "3", "--set", "name=x"], "--set name: would be another run"),
        (["--patch", "16", "--only", "certified"], "there are no certified images to choose from"),
        ([], "name one of --patch SIDE"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], line: str, run: Path) -> None:
    check_refused(smoothcert("attack", run, *arguments), line)
    assert not (run / "studies").exists()


def run_of_masks(folder: Path, **ablation: Any) -> Path:
    """A complete run on forty images, by a network that is not sure of them."""
    folder.mkdir(exist_ok=True)
    jobs.write_shards(folder, 2, 20)
    changes = {"ablation": {"kind": "mask", "threat": 6, "per_axis": 3} | ablation}
    return finish_job(load_job(jobs.write_job(folder, **changes)))


def test_masks_are_attacked_with_their_own_threat(tmp_path: Path) -> None:
    """The bracket counts what the published algorithm predicts, and certifies by the rows of uniform masks."""
    run = run_of_masks(tmp_path)
    value = answer(run, *CHEAP, "--only", "all")
    stored, found = open_run(run), rows(run)
    masks = ablations_of(stored.job.ablation, jobs.CROP, jobs.CROP)
    assert isinstance(masks, MaskSet)
    hiding = masks.hiding(6, 6)
    certified = list[bool]()
    for votes, row in zip(stored.votes(), found, strict=True):
        assert double_masking(votes.tolist(), masks.unions.tolist()) == row["prediction"]
        uniform = np.array([(votes[own] == row["prediction"]).all() for own in masks.unions])
        certified.append(bool((hiding & uniform).any(axis=1).all()))
        assert row["slack"] == (hiding & uniform).sum(axis=1).min() - 1
    right = [row["label"] == row["prediction"] for row in found]
    bracket = value["bracket"]
    assert bracket["patch"] == [6, 6]
    assert bracket["right"] == sum(right)
    assert bracket["certified"] == sum(np.logical_and(right, certified))
    assert bracket["attacked_certified"] == sum(certified)
    assert value["fell"] == sum(row["fell"] for row in found)
    assert 0 < sum(certified) < 40
    assert value["fell"]
    assert value["problems"] == []


def test_a_rule_that_looks_at_one_place_of_masks_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It certifies images that fall at the others."""
    run, real = run_of_masks(tmp_path), double_masking_rules.exact_recovery

    def careless(ballots: Any, covers: Covers) -> rules.Answer:
        return real(ballots, Covers(covers.sets[:1], covers.places[:1]))

    monkeypatch.setattr(double_masking_rules, "exact_recovery", careless)
    done = smoothcert("attack", run, *CHEAP, "--only", "all")
    assert done.exit_code == 1
    assert "fell to a 6 x 6 patch (" in done.output
    assert "a certificate or the engine is wrong" in done.output


def test_votes_that_were_left_out_are_cast_for_the_attack(tmp_path: Path) -> None:
    """A run with early exit gives the rows of the run with all votes."""
    whole, early = run_of_masks(tmp_path / "whole"), run_of_masks(tmp_path / "early", early_exit=True)
    assert (open_run(early).votes() < 0).any()
    answer(whole, *CHEAP, "--only", "all")
    answer(early, *CHEAP, "--only", "all")
    assert rows(early) == rows(whole)
    assert any(row["fell"] for row in rows(early))


def test_a_patch_that_no_mask_hides_is_refused(tmp_path: Path) -> None:
    """Smaller ones are attacked."""
    run = run_of_masks(tmp_path)
    check_refused(smoothcert("attack", run, "--patch", 10), "patch 10 x 10: no mask hides it at")
    assert answer(run, "--patch", "3x6", *CHEAP, "--limit", 2)["attacked"] == 2


def test_an_area_has_no_patch_of_its_own(tmp_path: Path) -> None:
    run = run_of_masks(tmp_path, threat={"pixels": 20})
    check_refused(smoothcert("attack", run), "name one of --patch SIDE")
    assert answer(run, "--patch", "2x10", *CHEAP, "--limit", 2)["attacked"] == 2


def test_an_unfinished_run_is_refused(run: Path) -> None:
    (run / "_SUCCESS").unlink()
    check_refused(smoothcert("attack", run, "--patch", 4), "the run is not complete")
