"""A run.json that cannot be read, or that describes no possible run, is a wrong request."""

from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.verify.check import verify
from tests.helpers.finished_runs import edit_json


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"run_id": "x", "identity": {}, "job": {}, "shards": []}'])
def test_a_damaged_run_json_is_a_wrong_request(run: Path, content: str) -> None:
    """Without run.json nothing can be said, in one line."""
    with pytest.raises(RequestError, match=r"holds no run\.json; name the folder of a run"):
        verify(str(run / "votes"))
    (run / "run.json").write_text(content)
    with pytest.raises(RequestError, match=r"run\.json is damaged .*; restore it$"):
        verify(str(run))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("ablation", {"size": 17}),
        ("ablation", {"stride": 0}),
        ("ablation", {"kind": "spiral"}),
        ("model", {"classes": None}),
        ("model", {"classes": 1}),
        ("preprocess", {"resize": "large"}),
        ("preprocess", {"resize": []}),
        ("images", {"limit": "few"}),
    ],
)
def test_an_impossible_job_is_a_wrong_request(run: Path, part: str, change: dict[str, Any]) -> None:
    """Nothing can be counted with it."""
    edit_json(run / "run.json", lambda record: record["job"][part].update(change))
    with pytest.raises(RequestError, match=r"run\.json is damaged"):
        verify(str(run))
