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
    "content",
    [
        '{"run_id": "x", "run_id": "y"}',  # parsers differ on which of them counts
        '{"name": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"votes_version": ' + "9" * 5000 + "}",  # more digits than Python reads
        '{"votes_version": NaN}',
        b'{"name": "\xff"}',
    ],
    ids=["key twice", "deep", "long number", "NaN", "not UTF-8"],
)
def test_unusual_json_is_one_line(run: Path, content: str | bytes) -> None:
    """Python's reader raises other errors than pydantic's."""
    (run / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RequestError, match=r"^[^\n]*run\.json is damaged \([^\n]{1,200}\); restore it$"):
        verify(str(run))


def test_a_key_that_comes_twice_is_named(run: Path) -> None:
    """Also in a file that is complete."""
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace("{", '{"created": "now", ', 1))
    with pytest.raises(RequestError, match=r"run\.json is damaged \('created' comes twice\); restore it$"):
        verify(str(run))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("ablation", {"size": 17}),
        ("ablation", {"stride": 0}),
        ("ablation", {"kind": "spiral"}),
        ("model", {"classes": None}),
        ("model", {"classes": 1}),
        ("model", {"classes": 2**16 + 1}),  # votes are uint16
        ("preprocess", {"crop": 2**40}),
        ("preprocess", {"resize": 10**400}),
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


def test_more_ablations_than_a_column_holds_are_a_wrong_request(run: Path) -> None:
    """The type of such a column cannot even be made."""

    def enlarge(record: dict[str, Any]) -> None:
        record["job"]["preprocess"].update(crop=2**31 - 1)
        record["job"]["ablation"].update(kind="block", stride=1)

    edit_json(run / "run.json", enlarge)
    with pytest.raises(RequestError, match=r"run\.json is damaged .*ablations"):
        verify(str(run))
