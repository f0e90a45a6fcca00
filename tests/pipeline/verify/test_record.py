"""A run.json that cannot be read, or that describes no possible run, is a wrong request."""

from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.pipeline.verify.check import verify
from smoothcert.pipeline.verify.masks import Masks
from smoothcert.pipeline.verify.record import open_run
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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"threat": 0}, "threat"),
        ({"threat": True}, "threat"),
        ({"threat": [4, 4]}, "threat"),
        ({"threat": "4 x 8"}, "threat"),
        ({"threat": "0x8"}, "threat"),
        ({"threat": {"pixels": 0}}, "threat"),
        ({"threat": {"pixels": True}}, "threat"),
        ({"threat": {"pixels": 9, "side": 3}}, "threat"),
        ({"threat": 17}, "the image has 16 x 16 pixels"),
        ({"threat": "2x17"}, "the image has 16 x 16 pixels"),
        ({"threat": 16}, "hides the whole image"),
        ({"threat": "1x16", "per_axis": 2}, "hides the whole image"),  # two strips
        ({"per_axis": 1}, "per_axis"),
        ({"per_axis": 2, "threat_patches": 2}, "hides the whole image"),  # four masks
        ({"threat": 1, "per_axis": 16}, "ablation gives 32896 votes, at most 16384 are allowed"),
        ({"threat": 1, "per_axis": 2**31 - 1}, "ablation gives 32896 votes, at most 16384 are allowed"),
        ({"threat_patches": 0}, "threat_patches"),
        ({"threat_patches": 3}, "threat_patches"),
        ({"threat_patches": True}, "threat_patches"),
        ({"fill": "gray"}, "fill"),
        ({"early_exit": 1}, "early_exit"),
        ({"stride": 1}, "stride"),
        ({"kind": "row"}, "size"),
    ],
)
def test_impossible_masks_are_a_wrong_request(masks_run: Path, change: dict[str, Any], says: str) -> None:
    """In one line that names the entry."""
    edit_json(masks_run / "run.json", lambda record: record["job"]["ablation"].update(change))
    with pytest.raises(RequestError, match=rf"run\.json is damaged \(job[^\n]*{says}[^\n]*\); restore it$"):
        verify(str(masks_run))


@pytest.mark.parametrize(
    ("threat", "expected"), [(5, (5, 5)), ("3x12", (3, 12)), ({"pixels": 12}, 12)], ids=["side", "rectangle", "area"]
)
def test_a_threat_is_read(masks_run: Path, threat: Any, expected: tuple[int, int] | int) -> None:
    """A side, height and width, or a number of pixels."""
    edit_json(masks_run / "run.json", lambda record: record["job"]["ablation"].update(threat=threat, per_axis=3))
    assert open_run(str(masks_run), Storage()).job.ablations == Masks(expected, 3, 1, True, 16)


def test_masks_without_number_are_a_wrong_request(masks_run: Path) -> None:
    """They are not made to be counted."""

    def enlarge(record: dict[str, Any]) -> None:
        record["job"]["preprocess"].update(crop=2**31 - 1)
        record["job"]["ablation"].update(per_axis=2**31 - 1)

    edit_json(masks_run / "run.json", enlarge)
    with pytest.raises(RequestError, match=r"run\.json is damaged \(job: .*gives more than 16384 votes\); restore it$"):
        verify(str(masks_run))
