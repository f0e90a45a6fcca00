"""The JSON of a comparison, and the file of its changes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.gates import Gates
from smoothcert.pipeline.compare.comparison import compare
from smoothcert.pipeline.compare.gates import evaluate
from smoothcert.pipeline.compare.reasons import Reason
from smoothcert.pipeline.compare.record import as_json, write_changes, write_text
from smoothcert.workers.storage.output_file import OutputFile
from tests.helpers.judged_runs import image, judged_run
from tests.helpers.studies import attack
from tests.pipeline.compare.conftest import CLOSE, TwoRuns
from tests.pipeline.compare.test_gates import TODAY


def test_json_has_the_keys_that_programs_read(two_runs: TwoRuns) -> None:
    """It survives a round trip, and names both runs."""
    found = compare(*two_runs, patches=[(2, 2)], tolerance=0.6, allow=[Reason.images])
    content = json.loads(json.dumps(as_json(found)))
    assert content["schema"] == 3
    assert content["base"] == {
        "run_id": two_runs.base.run_id,
        "path": two_runs.base.url,
        "job": "judged",
        "complete": True,
    }
    assert (content["paired"], content["only_base"], content["only_new"]) == (7, 3, 3)
    assert content["differences"] == ["images.shards", "model.checkpoint_sha256"]
    assert (content["predictions_changed"], content["votes_changed"]) == (1, 22)
    assert content["votes_changed_within_tolerance"] == 5
    exact = content["certified"][0]
    assert (exact["pixels"], exact["patches"]) == (None, 1)
    assert (exact["patch"], exact["certificate"], exact["rule"]) == ([2, 2], "recovery", "exact")
    assert [exact[name] for name in ("base", "new", "lost", "gained", "kept_other_class")] == [5, 3, 2, 1, 1]
    assert (
        exact.keys() - {"patch", "pixels", "patches", "certificate", "rule", "kept_other_class"}
        == content["smoothed"].keys()
        == content["clean"].keys()
    )
    assert content["smoothed"].keys() >= {"base", "new", "lost", "gained", "p_value", "difference", "interval"}
    assert content["classes"][0] == {"class": 0, "images": 6, "lost": 2, "gained": 1, "p_adjusted": 1.0}
    assert content["attacked"] == []
    assert content["gate"] is None


def test_json_holds_both_brackets_and_what_fell_in_one_run(tmp_path: Path) -> None:
    shards = {"a.tar": [image(key, CLOSE) for key in "abc"]}
    base, new = judged_run(tmp_path / "a", shards), judged_run(tmp_path / "b", shards, weights="1")
    attack(base, {"a": True, "b": False})
    attack(new, {"a": False, "b": False, "c": True})
    found = compare(base, new)
    (content,) = json.loads(json.dumps(as_json(found)))["attacked"]
    assert content == {
        "patch": [2, 2],
        "base": json.loads(json.dumps(found.attacked[0].base.as_json())),
        "new": json.loads(json.dumps(found.attacked[0].new.as_json())),
        "both": 2,
        "fell_in_base": [
            {"shard": "a.tar", "key": "a", "label": 0, "prediction": 0, "becomes": 1, "top": 1, "left": 2}
        ],
        "fell_in_new": [],
    }
    assert content["new"]["fell"] == 1


def test_json_holds_what_the_gates_say(two_runs: TwoRuns) -> None:
    """Each failure with its images."""
    found = compare(*two_runs, patches=[(2, 2)], allow=[Reason.images])
    gates = Gates.model_validate({"gates": [{"metric": "errors", "max": 0.0}, {"metric": "smoothed", "min": 0.1}]})
    gate = as_json(found, evaluate(found, gates, TODAY))["gate"]
    assert not gate["passed"]
    (failure,) = gate["failures"]
    assert failure["text"].startswith("errors: ")
    assert failure["images"] == [{"shard": "a.tar", "key": "broken"}]


def test_every_change_is_a_row_of_a_file(two_runs: TwoRuns, tmp_path: Path) -> None:
    """The file is new, and appears when it is complete."""
    found = compare(*two_runs, patches=[(2, 2)], allow=[Reason.images])
    out = tmp_path / "changes.parquet"
    output = OutputFile(str(out), "--parquet")
    write_changes(found, output)
    assert pq.read_table(out).equals(found.pairs.changes)
    with pytest.raises(RequestError, match=r"--parquet .*changes\.parquet: is there already; name a new file"):
        write_changes(found, output)
    with pytest.raises(RequestError, match=r"--markdown .*: cannot be written \(No such file or directory\)"):
        write_text("text", OutputFile(str(tmp_path / "none" / "out.md"), "--markdown"))
