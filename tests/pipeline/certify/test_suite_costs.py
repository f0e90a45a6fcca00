"""`plan SUITE` says what each job costs, what the jobs share, and which of them cannot be done."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import Result
from typer.testing import CliRunner

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.certify import costs
from smoothcert.pipeline.certify.suite_costs import suite_costs_of
from smoothcert.pipeline.certify.suite_driver import plans_of
from smoothcert.pipeline.cli import app
from smoothcert.workers.networks.described_jobs import load_suite
from tests.helpers import jobs
from tests.helpers.suites import entries_of, write_suite
from tests.helpers.tars import write_tar

GIB = 2**30


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of three jobs, two of which see the same pixels, on three tars."""
    jobs.write_shards(tmp_path)
    return write_suite(tmp_path)


def plan(file: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["plan", str(file), *options], env={"COLUMNS": "100"})


def plan_as_json(file: Path, *options: str) -> dict[str, Any]:
    printed = plan(file, "--json", *options)
    found: dict[str, Any] = json.loads(printed.stdout)
    return found | {"exit_code": printed.exit_code, "stderr": printed.stderr.splitlines()}


def test_each_entry_costs_what_its_job_costs_alone(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it shares: the figures are those of `plan JOB` of a file with the same keys."""
    seconds = {"float32": 3.0, "bfloat16": 1.0, "float16": 9.0}  # each turn would take another time
    monkeypatch.setattr(costs, "block_seconds", lambda *_: seconds)
    found = plan_as_json(suite, "--tflops", "3")
    assert (found["suite"], found["exit_code"], list(found["entries"])) == ("suite", 0, ["first", "second", "third"])
    for name, job in entries_of(suite).items():
        alone = suite.with_name(f"{name}.yaml")
        alone.write_text(yaml.safe_dump(job.model_dump(mode="json")))
        assert found["entries"][name] == json.loads(plan(alone, "--json", "--tflops", "3").stdout)
    assert not (suite.parent / "runs").exists()


def test_what_is_printed(suite: Path) -> None:
    """A table for each entry with its run, then what they share."""
    printed = plan(suite)
    assert (printed.exit_code, printed.stderr) == (0, "")
    found = plan_as_json(suite)
    for name in ("first", "second", "third"):
        assert printed.stdout.count(f"suite: {name}\n") == 1
        assert f"\n{found['entries'][name]['path']}\n" in printed.stdout
        assert f"notice: {name}: preprocess: mean " in printed.stdout
    assert printed.stdout.splitlines()[-2:] == [
        "notice: each shard is decoded once for first, second",
        "notice: each shard is decoded by itself for third, whose pixels or classes differ from the others'",
    ]
    assert found["notices"] == [line.removeprefix("notice: ") for line in printed.stdout.splitlines()[-2:]]
    notices = [f"notice: {name}: {line}" for name, entry in found["entries"].items() for line in entry["notices"]]
    assert found["stderr"] == [*notices, *printed.stdout.splitlines()[-2:]]


@pytest.mark.parametrize(
    ("own", "together"),
    [
        ({"ablation": {"size": 3}}, True),
        ({"ablation": {"kind": "row"}}, True),
        ({"model": {"dtype": "bfloat16"}}, True),
        ({"clean": False}, True),
        ({"preprocess": {"mean": [0.5, 0.5, 0.5]}}, True),  # the network does this
        ({"preprocess": {"resize": 17}}, False),
        ({"preprocess": {"resize": 17, "squash": True}}, False),
        ({"preprocess": {"orient": True}}, False),
        ({"preprocess": {"decoder": "nvjpeg"}}, False),
        ({"preprocess": {"interpolation": "bicubic"}}, False),
    ],
    ids=str,
)
def test_jobs_that_see_the_same_pixels_are_decoded_together(suite: Path, own: dict[str, Any], together: bool) -> None:
    """Ablations, weights and normalisation come after the pixels."""
    found = plan_as_json(write_suite(suite.parent, entries={"a": {}, "b": own}))
    assert found["exit_code"] == 0
    assert found["decoded_together"] == ([["a", "b"]] if together else [["a"], ["b"]])
    alone = [line for line in found["notices"] if "decoded by itself" in line]
    assert len(alone) == (0 if together else 2)


def test_a_suite_of_one_job_shares_nothing(suite: Path) -> None:
    """So nothing is said of it."""
    found = plan_as_json(write_suite(suite.parent, entries={"a": {}}))
    assert (found["decoded_together"], found["turns"], found["notices"]) == ([["a"]], [["a"]], [])


def test_models_that_do_not_fit_an_actor_take_turns(suite: Path) -> None:
    """The plan says so, and what is decoded together in each turn; a large actor has them all at once."""
    weights = (suite.parent / "weights.pt").stat().st_size, (suite.parent / "weights2.pt").stat().st_size
    entries = {
        "a": {},
        "b": {"ablation": {"size": 3}},
        "c": {"model": {"checkpoint": "weights2.pt"}},
        "d": {"preprocess": {"resize": 20}},
    }
    suite = write_suite(suite.parent, entries=entries)
    memory_gib = 2 * (weights[0] + max(weights)) / GIB * 1.001  # for two of the models
    found = plan_as_json(suite, "--set", f"execution.memory_gib={memory_gib}")
    assert found["turns"] == [["a", "b"], ["c", "d"]]
    assert found["decoded_together"] == [["a", "b"], ["c"], ["d"]]
    total = (3 * weights[0] + weights[1]) / GIB
    assert found["notices"] == [
        "each shard is decoded once for a, b",
        "each shard is decoded by itself for c, whose pixels or classes differ from the others'",
        "each shard is decoded by itself for d, whose pixels or classes differ from the others'",
        f"the weights of all models, {total:.3g} GiB, do not fit 50% of an actor's memory, {memory_gib:.3g} GiB "
        "(execution.memory_gib), so the models take turns; each turn fetches and decodes the shards again",
        "turn 1 of 2: a, b",
        "turn 2 of 2: c, d",
    ]
    printed = plan(suite, "--set", f"execution.memory_gib={memory_gib}").stdout.splitlines()
    assert printed[-2:] == ["notice: turn 1 of 2: a, b", "notice: turn 2 of 2: c, d"]
    alone = plan_as_json(suite, "--set", f"execution.memory_gib={weights[0] / GIB}")
    assert alone["turns"] == alone["decoded_together"] == [["a"], ["b"], ["c"], ["d"]]
    assert not any("is decoded" in line for line in alone["notices"])  # there is nobody to decode it with
    assert plan_as_json(suite, "--set", "execution.memory_gib=4")["turns"] == [["a", "b", "c", "d"]]
    assert plan_as_json(suite)["turns"] == [["a", "b", "c", "d"]]


def test_an_entry_whose_checkpoint_does_not_fit_is_named(suite: Path) -> None:
    """The others are planned, and share what they share."""
    state = torch.load(suite.parent / "weights.pt")
    torch.save(state | {"head.bias": torch.zeros(7)}, suite.parent / "misfit.pt")
    entries = {"a": {}, "misfit": {"model": {"checkpoint": "misfit.pt"}}, "b": {"ablation": {"size": 3}}}
    suite = write_suite(suite.parent, entries=entries)
    printed, found = plan(suite), plan_as_json(suite)
    assert (printed.exit_code, found["exit_code"]) == (2, 2)
    (problem,) = found["entries"].pop("misfit")["problems"]
    assert problem.startswith(f"model.checkpoint: {suite.parent}/misfit.pt does not fit vit_tiny_patch16_224")
    assert "head.bias is [7], expected [3]" in problem
    assert printed.stdout.count("failed: ") == 1
    assert f"failed: misfit: {problem}\n" in printed.stdout
    assert f"failed: misfit: {problem}" in found["stderr"]
    assert (list(found["entries"]), found["turns"]) == (["a", "b"], [["a", "b"]])
    assert found["decoded_together"] == [["a", "b"]]


def test_a_suite_without_a_model_that_fits_says_that_alone(suite: Path) -> None:
    """A line for each entry, and nothing of turns."""
    found = plan_as_json(suite, "--set", "model.classes=4")
    assert (found["exit_code"], found["turns"], found["notices"]) == (2, [], [])
    assert [line.split(": ")[:2] for line in found["stderr"]] == [
        ["failed", "first"],
        ["failed", "second"],
        ["failed", "third"],
    ]


def test_two_entries_that_are_one_run_are_told(suite: Path) -> None:
    """The second is refused: patches and names make no other run."""
    suite = write_suite(suite.parent, entries={"a": {}, "b": {"patches": [3], "name": "other"}, "c": {"clean": False}})
    found = plan_as_json(suite)
    run_id = found["entries"]["a"]["run_id"]
    line = f"this entry is the same run as a ({run_id}); remove one of them"
    assert found["entries"]["b"] == {"problems": [line]}
    assert (found["exit_code"], found["turns"]) == (2, [["a", "c"]])
    plans, faults = plans_of(load_suite(suite))
    assert list(plans) == ["a", "c"]
    assert {name: str(fault) for name, fault in faults.items()} == {"b": line}


def test_a_missing_checkpoint_is_the_fault_of_its_entry(suite: Path) -> None:
    """If all lack it, it is one error."""
    (suite.parent / "weights2.pt").unlink()
    plans, faults = plans_of(load_suite(suite))
    assert (list(plans), list(faults)) == (["first", "third"], ["second"])
    assert "weights2.pt" in str(faults["second"])
    (suite.parent / "weights.pt").unlink()
    with pytest.raises(RequestError, match=r"^model\.checkpoint: \S*/weights\.pt[^\n]*$"):
        plans_of(load_suite(write_without_second(suite)))


def write_without_second(suite: Path) -> Path:
    content = yaml.safe_load(suite.read_text())
    del content["entries"]["second"]
    suite.write_text(yaml.safe_dump(content))
    return suite


@pytest.mark.parametrize("command", ["plan", "status"])
@pytest.mark.parametrize("option", [[], ["--json"]], ids=["table", "json"])
def test_missing_images_are_one_error(suite: Path, command: str, option: list[str]) -> None:
    """Not one for each entry, whatever else is wrong with them."""
    (suite.parent / "tars").rename(suite.parent / "away")
    (suite.parent / "weights2.pt").unlink()
    printed = CliRunner().invoke(app, [command, str(suite), *option])
    assert (printed.exit_code, printed.stdout) == (2, "")
    (line,) = printed.stderr.splitlines()
    assert line.startswith(f"error: images.shards: {suite.parent}/tars does not exist")


def test_a_shard_that_would_fail_is_named_with_its_entry(suite: Path) -> None:
    """Exit code 1, as of a job: its request is right."""
    write_tar(suite.parent / "tars", b"", "03.tar")
    found = plan_as_json(suite)
    assert found["exit_code"] == 1
    for name, entry in found["entries"].items():
        ((failure),) = entry["failures"]
        assert failure["shard"] == "03.tar"
        assert f"failed: {name}: {failure['reason']}" in found["stderr"]


def test_the_memory_of_this_machine_is_assumed(suite: Path) -> None:
    """Unless the file says what an actor has."""
    loaded = load_suite(suite)
    (total,) = [line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line]
    if not torch.cuda.is_available():
        assert suite_costs_of(loaded, 1.0).memory == int(total) * 1024
    assert suite_costs_of(load_suite(suite, ["execution.memory_gib=1.5"]), 1.0).memory == 3 * GIB // 2
