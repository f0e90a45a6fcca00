"""`smoothcert attack JOB --norm`: robust accuracy, joined with certificates, in RobustBench's words."""

import json
from pathlib import Path
from typing import Any

import pytest

from smoothcert.workers.networks.described_jobs import load_job
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.studies.study import studies_of
from tests.helpers import jobs
from tests.helpers.commands import check_refused, smoothcert
from tests.helpers.finished_runs import finish_job

pytest.importorskip("pyautoattack")
pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    jobs.write_shards(tmp_path)
    return jobs.write_job(tmp_path)


def answer(*arguments: object) -> dict[str, Any]:
    done = smoothcert("attack", *arguments, "--json")
    assert done.exit_code == 0, done.output
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_the_answer_counts_the_rows_and_joins_the_certificates(job: Path) -> None:
    run = finish_job(load_job(job))
    value = answer(job, "--norm", "linf", "--eps", "8/255", "--steps", 4, "--queries", 4)
    (study,) = studies_of(open_run(run))
    rows = study.rows().to_pylist()
    assert value["images"] == len(rows) == 15
    assert value["clean_accuracy"]["count"] == sum(row["clean_right"] for row in rows)
    assert value["robust_accuracy"]["count"] == sum(row["robust"] for row in rows)
    assert all(row["clean_right"] or not row["robust"] for row in rows)
    stored = {(row["shard"], row["index"]): row for row in open_run(run).images().to_pylist()}
    for entry in value["certified"]:
        side = entry["patch"][0]
        certified = {
            key: row["prediction"] == row["label"] and row["max_certified_patch"] >= side for key, row in stored.items()
        }
        robust = {(row["shard"], row["index"]): row["robust"] for row in rows}
        both = sum(certified[key] and robust[key] for key in robust)
        assert entry["both"] == both
        assert entry["certified_only"] == sum(certified.values()) - both
        assert entry["robust_only"] == sum(robust.values()) - both
        assert sum(entry[name] for name in ("both", "certified_only", "robust_only", "neither")) == 15


def test_the_card_has_the_keys_of_robustbench(job: Path) -> None:
    """No votes are needed."""
    value = answer(job, "--norm", "linf", "--eps", "8/255", "--steps", 2, "--queries", 2)
    card = value["robustbench"]
    right, robust = value["clean_accuracy"]["count"], value["robust_accuracy"]["count"]
    assert card == {
        "name": "small",
        "architecture": "vit_tiny_patch16_224",
        "threat_model": "Linf",
        "eps": "8/255",
        "number_forward_passes": 1,
        "clean_acc": f"{100 * right / 15:.2f}",
        "external": f"{100 * robust / 15:.2f}",
    }
    assert value["certified"] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("norm", "eps", "threat", "text"),
    [("l2", "2", "L2", "2"), ("linf", "0.001", "Linf", "0.001"), ("linf", "1/3", "Linf", "85/255")],
)
def test_eps_is_written_as_papers_do(norm: str, eps: str, threat: str, text: str, job: Path) -> None:
    card = answer(job, "--norm", norm, "--eps", eps, "--attack", "fgsm", "--limit", 1)["robustbench"]
    assert (card["threat_model"], card["eps"]) == (threat, text)


def test_people_read_a_table(job: Path) -> None:
    done = smoothcert("attack", job, "--norm", "linf", "--eps", "8/255", "--attack", "apgd", "--steps", 2)
    assert done.exit_code == 0
    for line in ("apgd in linf, eps 8/255, on whole images", "clean accuracy", "robust accuracy, at most"):
        assert line in done.stdout


def test_without_labels_there_is_no_robust_accuracy(tmp_path: Path) -> None:
    jobs.write_shards(tmp_path)
    job = jobs.write_job(tmp_path, images={"shards": "tars", "label": None})
    check_refused(smoothcert("attack", job, "--norm", "linf", "--eps", "1/255"), "images.label: null, but robust")
