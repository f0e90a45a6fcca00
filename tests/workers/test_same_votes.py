"""The same tars give the same votes in float32 as when they were first recorded, however the engine has changed since.

Record anew, only where votes are meant to change (manifests/identity.py has VOTES_VERSION for that):

    python -m tests.workers.test_same_votes
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import faults, jobs

_RECORD = Path(__file__).with_suffix(".json")
_CASES: dict[str, dict[str, Any]] = {
    "columns": {"ablation": {"kind": "column", "size": 4}},
    "rows, stride 3": {"ablation": {"kind": "row", "size": 5, "stride": 3}},
    "blocks, stride 2": {"ablation": {"kind": "block", "size": 7, "stride": 2}},
    "columns, hidden tokens kept": {"ablation": {"kind": "column", "size": 4}, "masked_tokens": "keep"},
}
_FRAGILE = 1e-4  # a vote of less margin may differ between machines


@pytest.mark.parametrize("case", _CASES)
def test_the_same_tars_give_the_same_votes(case: str, tmp_path: Path) -> None:
    """Every vote, margin, prediction and certificate of a small job."""
    then, now = json.loads(_RECORD.read_text())[case], _answers(case, tmp_path)
    margins = np.array(then["margins"])
    np.testing.assert_allclose(now["margins"], margins, rtol=0, atol=1e-5)
    clear = margins > _FRAGILE
    assert clear.mean() > 0.99
    assert (np.array(now["votes"]) == np.array(then["votes"]))[clear].all()
    if clear.all():
        names = then.keys() - {"votes", "margins"}
        assert {name: now[name] for name in names} == {name: then[name] for name in names}


def _answers(case: str, folder: Path) -> dict[str, list[Any]]:
    changes = dict(_CASES[case])
    model = {"masked_tokens": changes.pop("masked_tokens")} if "masked_tokens" in changes else {}
    jobs.write_shards(folder)
    job = jobs.write_job(folder, **changes)
    rows = faults.undisturbed_rows(job, folder / "runs", [f"model.{name}={value}" for name, value in model.items()])
    names = ["votes", "margins", "prediction", "clean_prediction", "max_certified_patch", "max_margin_certified_patch"]
    return {name: [row[name] for row in rows] for name in names}


def _record() -> None:
    records = {}
    for case in _CASES:
        with tempfile.TemporaryDirectory() as folder:
            records[case] = _answers(case, Path(folder))
    lines = (f'"{case}": {json.dumps(record)}' for case, record in records.items())
    _RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    _record()
