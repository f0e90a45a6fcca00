"""A JSON file as a record: the same bytes again, and one line about damage."""

import json

import pytest
from pydantic import ValidationError

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.workers.runs.json_file import Record, damaged, parse


class Part(Record):
    size: int


class Example(Record):
    error = RequestError
    remedy = "write it again"
    name: str
    parts: dict[str, Part]
    share: float | None = None


DAMAGE = {
    b"": "Expecting value: line 1 column 1 (char 0)",
    b"{": "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    b"\xff": "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    b"[]": "it is not a JSON object",
    b"null": "it is not a JSON object",
    b"{}": "name is missing",
    b'{"name": 5, "parts": {}}': "name should be a valid string",
    b'{"name": "a", "parts": {"b": {}}}': "parts.b.size is missing",
    b'{"name": "a", "parts": {"b": {"size": true}}}': "parts.b.size should be a valid integer",
    b'{"name": "a", "parts": {"b": {"size": "1"}}}': "parts.b.size should be a valid integer",
}


@pytest.mark.parametrize("data", DAMAGE, ids=str)
def test_damage_is_one_line_that_names_the_first_wrong_field(data: bytes) -> None:
    """File, field and remedy; the record says which error it is."""
    with pytest.raises(RequestError) as error:
        parse(Example, data, "s3://bucket/file")
    assert str(error.value) == f"s3://bucket/file is damaged ({DAMAGE[data]}); write it again"


def test_damage_to_a_file_that_can_be_made_again_is_an_error_of_the_run() -> None:
    """Unless a record says otherwise, the remedy is repair."""
    with pytest.raises(RunError, match=r"^file is damaged \(size is missing\); `smoothcert repair` the run, then run "):
        parse(Part, "{}", "file")


def test_json_that_is_nested_too_deeply_is_damage() -> None:
    """Python gives up at some depth."""
    with pytest.raises(RequestError, match=r"^file is damaged \(.+\); write it again$"):
        parse(Example, "[" * 100_000, "file")


def test_damage_of_several_lines_is_told_in_one() -> None:
    """Arrow's errors have several."""
    assert damaged("file", ValueError("one\n  two"), "restore it") == "file is damaged (one two); restore it"


@pytest.mark.parametrize(
    "content",
    [
        {"name": "a", "parts": {"b": {"size": 1}}, "share": 0.5},
        {"parts": {}, "name": "keys in another order"},
        {"name": "a key that is null", "parts": {}, "share": None},
        {"name": "further keys", "parts": {"b": {"size": 1, "more": [1, {"z": None}]}}, "unknown": {"b": 1.0, "a": 2}},
        {"name": "lone surrogate \udcff, \x00, ブ", "parts": {}},
        {"name": "no number", "parts": {}, "share": float("nan")},
    ],
)
def test_what_was_read_is_encoded_as_it_was(content: dict[str, object]) -> None:
    """No key is added, removed or converted."""
    again = json.loads(parse(Example, json.dumps(content), "file").encode())
    assert json.dumps(again, sort_keys=True) == json.dumps(content, sort_keys=True)


def test_a_record_cannot_be_changed() -> None:
    """Assignment is an error."""
    with pytest.raises(ValidationError, match="frozen"):
        Part(size=1).size = 2  # type: ignore[misc]
