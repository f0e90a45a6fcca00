"""The table of votes is read as it was written, and its checksum covers the values and nothing else."""

import hashlib
import io
import math
import struct
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.workers.certificates.families import DOUBLE_MASKING, MAJORITY
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.runs.published import parse_metadata
from smoothcert.workers.runs.records import FileMetadata
from smoothcert.workers.runs.votes_table import (
    ABSENT,
    STATUSES,
    columns_sha256,
    encode,
    matrix_of,
    numbers_of,
    schema,
    spread,
)
from tests.helpers.rows import file_of, row_of

Columns = dict[str, Any]
ABLATIONS = 3
INT32 = st.integers(-(2**31), 2**31 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "key": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "shard": st.sampled_from(["a.tar", "b.tar", "ä.tar"]),
    "index": INT32,
    "image_offset": st.integers(0, 2**50),
    "image_bytes": INT32,
    "sha256": st.binary(min_size=32, max_size=32),
    "status": st.sampled_from(STATUSES),
    "error": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "clean_margin": st.none() | FLOAT32,
    "votes": st.none() | st.lists(st.integers(0, 65535), min_size=ABLATIONS, max_size=ABLATIONS),
    "margins": st.none() | st.lists(FLOAT32, min_size=ABLATIONS, max_size=ABLATIONS),
}


def _rows_of(family: RuleFamily) -> st.SearchStrategy[list[Columns]]:
    more = {
        field.name: st.none() | (st.booleans() if pa.types.is_boolean(field.type) else INT32)
        for field in schema(ABLATIONS, family)
        if field.name not in VALUES
    }
    return st.lists(st.fixed_dictionaries(VALUES | more), max_size=6)


ROWS = _rows_of(MAJORITY)


def _example() -> list[Columns]:
    whole: Columns = {
        "key": "a", "shard": "s.tar", "index": 0, "image_offset": 512, "image_bytes": 9, "sha256": b"\1" * 32,
        "status": "ok", "error": None, "label": 1, "width": 4, "height": 5, "clean_prediction": 1, "clean_margin": 0.5,
        "prediction": 1, "count": 2, "runner_up": 0, "runner_up_count": 1, "votes": [1, 1, 0],
        "margins": [0.25, 0.5, 4.0], "max_certified_patch": 2, "max_margin_certified_patch": 1,
    }  # fmt: skip
    lost = {name: whole[name] for name in ("key", "shard", "index", "image_offset", "image_bytes", "sha256")}
    return [whole, lost | {"key": "b", "index": 1, "status": "decode_error", "error": "broken"}]


def _encode(rows: Sequence[Columns], metadata: dict[str, Any] | None = None) -> bytes:
    return file_of(rows, ABLATIONS, {"run_id": "abc"} | (metadata or {}))


def _read(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def _checksum(rows: Sequence[Columns], family: RuleFamily = MAJORITY) -> str:
    data = file_of(rows, ABLATIONS, {"run_id": "abc"}, family)
    return str(parse_metadata(data, "a file").columns_sha256)


def _checksum_by_hand(rows: Sequence[Columns], family: RuleFamily = MAJORITY) -> str:
    """As the head of votes_table.py defines it, with struct instead of numpy and Arrow."""
    codes = {"int32": "<i", "int64": "<q", "float": "<f", "uint16": "<H", "bool": "<?"}
    digest = hashlib.sha256()
    for field in schema(ABLATIONS, family):
        values = [row.get(field.name) for row in rows]
        digest.update(field.name.encode() + b"\0" + bytes(value is not None for value in values))
        for value in values:
            if pa.types.is_fixed_size_list(field.type):
                code = codes[str(field.type.value_type)]
                digest.update(b"".join(struct.pack(code, item) for item in value or [0] * ABLATIONS))
            elif str(field.type) in codes:
                digest.update(struct.pack(codes[str(field.type)], value or 0))
            else:
                content = value.encode() if isinstance(value, str) else value or b""
                digest.update(struct.pack("<q", len(content)) + content)
    return digest.hexdigest()


@settings(max_examples=60)
@given(ROWS)
def test_every_value_is_read_as_it_was_written(rows: list[Columns]) -> None:
    """Nulls stay nulls; order and types are those of the schema."""
    table = _read(_encode(rows))
    assert table.to_pylist() == rows
    assert table.schema.equals(schema(ABLATIONS, MAJORITY))


@settings(max_examples=60)
@given(ROWS.map(lambda rows: [row | {"clean_margin": abs(row["clean_margin"] or 1.0)} for row in rows]))
def test_the_checksum_is_as_defined(rows: list[Columns]) -> None:
    """The checksum is what its definition says, made here without numpy and Arrow."""
    assert _checksum(rows) == _checksum_by_hand(rows)


@settings(max_examples=60)
@given(_rows_of(DOUBLE_MASKING).map(lambda rows: [row | {"clean_margin": 1.0} for row in rows]))
def test_the_checksum_of_truth_values_is_as_defined(rows: list[Columns]) -> None:
    """Masks store certificates as truth values; an absent one counts as false."""
    assert _checksum(rows, DOUBLE_MASKING) == _checksum_by_hand(rows, DOUBLE_MASKING)


def test_an_image_without_votes_has_nulls() -> None:
    """An image without votes has nulls, not zeros, and its neighbours keep theirs."""
    lost, whole = _example()[1], _example()[0]
    table = _read(_encode([lost, whole, lost]))
    assert table["votes"].to_pylist() == [None, [1, 1, 0], None]
    assert table["margins"].to_pylist() == [None, [0.25, 0.5, 4.0], None]
    assert table["prediction"].to_pylist() == [None, 1, None]


def test_numpy_values_are_taken() -> None:
    """Votes and margins come as numpy rows of the engine; they give the same file as lists."""
    whole = _example()[0]
    arrays = whole | {"votes": np.array(whole["votes"], np.int64), "margins": np.array(whole["margins"], np.float32)}
    assert _encode([arrays]) == _encode([whole])


REQUIRED = [field.name for field in schema(ABLATIONS, MAJORITY) if not field.nullable]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_row_needs_its_required_columns(name: str) -> None:
    """A row without key, shard, index, place, digest or status is not made; nor is one written in which it is None."""
    with pytest.raises(TypeError, match=name):
        row_of(**{key: value for key, value in _example()[0].items() if key != name})
    with pytest.raises((ValueError, pa.ArrowInvalid)):
        _encode([_example()[0] | {name: None}])


def test_the_schema_is_that_of_published_files() -> None:
    """Files of older and newer versions can be read as one table: no name, type, place or null changes."""
    text = pa.dictionary(pa.int32(), pa.string())
    assert REQUIRED == ["key", "shard", "index", "image_offset", "image_bytes", "sha256", "status"]
    assert [(field.name, field.type) for field in schema(224, MAJORITY)] == [
        ("key", pa.string()),
        ("shard", text),
        ("index", pa.int32()),
        ("image_offset", pa.int64()),
        ("image_bytes", pa.int32()),
        ("sha256", pa.binary(32)),
        ("status", text),
        ("error", pa.string()),
        ("label", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("clean_prediction", pa.int32()),
        ("clean_margin", pa.float32()),
        ("prediction", pa.int32()),
        ("count", pa.int32()),
        ("runner_up", pa.int32()),
        ("runner_up_count", pa.int32()),
        ("votes", pa.list_(pa.uint16(), 224)),
        ("margins", pa.list_(pa.float32(), 224)),
        ("max_certified_patch", pa.int32()),
        ("max_margin_certified_patch", pa.int32()),
    ]


@pytest.mark.parametrize("name", ["predictions", "max_certified", "Votes", "rotated"])
def test_a_mistyped_column_is_an_error(name: str) -> None:
    """It does not become null in silence."""
    with pytest.raises(TypeError, match=name):
        row_of(**_example()[0], **{name: 1})


def test_a_row_does_not_change() -> None:
    """Each step makes a new row."""
    with pytest.raises(FrozenInstanceError):
        row_of(**_example()[0]).status = "ok"  # type: ignore[misc]


@pytest.mark.parametrize(
    "encoding",
    [
        {"compression": "none"},
        {"compression": "snappy", "row_group_size": 1},
        {"compression": "zstd", "row_group_size": 7, "use_dictionary": False},
        {"data_page_version": "2.0", "version": "1.0"},
    ],
)
def test_checksum_ignores_the_encoding(encoding: dict[str, Any]) -> None:
    """Written again with another compression, row group size or dictionary, the checksum is the same."""
    rows = [row | {"index": index} for index, row in enumerate(_example() * 10)]
    table = _read(_encode(rows))
    file = io.BytesIO()
    pq.write_table(table, file, **encoding)
    assert columns_sha256(pq.read_table(file)) == _checksum(rows)


def test_checksum_ignores_chunks() -> None:
    """How a table is cut into chunks does not change its checksum."""
    rows = _example() * 3
    table = _read(_encode(rows))
    pieces = pa.concat_tables([table.slice(0, 1), table.slice(1, 4), table.slice(5)])
    assert columns_sha256(pieces) == columns_sha256(table) == _checksum(rows)


def test_votes_that_were_not_cast_are_null() -> None:
    """They come back as -1 with a margin of NaN, and the checksum tells them from class 0."""
    votes = [[1, -1, 0], [2, 1, 0], [-1, 3, -1]]
    margins = [[0.5, math.nan, 1.0], [1.0, 1.0, 1.0], [math.nan, 0.25, math.nan]]

    def encoded(votes: list[list[int]], margins: list[list[float]]) -> pa.Table:
        whole, lost = (row_of(**columns) for columns in _example())
        rows = [
            replace(whole, votes=np.array(one), margins=np.array(other, np.float32))
            for one, other in zip(votes, margins, strict=True)
        ]
        return _read(encode([*rows, lost], ABLATIONS, MAJORITY, FileMetadata.model_validate({"run_id": "abc"})))

    table = encoded(votes, margins)
    assert table["votes"].to_pylist() == [[1, None, 0], [2, 1, 0], [None, 3, None], None]
    assert table["margins"].to_pylist() == [[0.5, None, 1.0], [1.0, 1.0, 1.0], [None, 0.25, None], None]
    assert matrix_of(table["votes"][:3]).tolist() == votes
    assert np.array_equal(matrix_of(table["margins"][:3]), np.array(margins, np.float32), equal_nan=True)
    digest = hashlib.sha256(b"votes\0" + bytes([1, 1, 1, 0]))
    digest.update(struct.pack("<12H", 1, 0, 0, 2, 1, 0, 0, 3, 0, 0, 0, 0))
    digest.update(bytes([1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0]))
    assert columns_sha256(table.select(["votes"])) == digest.hexdigest()
    assert columns_sha256(encoded([[1, 0, 0]], margins[1:2])) != columns_sha256(encoded([[1, -1, 0]], margins[:1]))


OTHER_VALUES: dict[str, list[Any]] = {
    "sha256": [b"\2" * 32],
    "status": ["label_error"],
    "error": ["", "x"],
    "votes": [[1, 0, 1], [1, 1, 65535], [0, 0, 0], None],
    "margins": [[0.25, 4.0, 0.5], [0.25, 0.5, 4.0000005], [0.0, 0.0, 0.0], None],
}


@pytest.mark.parametrize("name", schema(ABLATIONS, MAJORITY).names)
def test_checksum_covers_every_value(name: str) -> None:
    """Another value in any one column, or a null where zeros were, is another checksum."""
    rows = _example()
    row, value = rows[0], rows[0][name]
    if name in OTHER_VALUES:
        others = OTHER_VALUES[name]
    elif isinstance(value, str):
        others = [f"{value}x"]
    else:
        others = [value + 7, *([0, None] if schema(ABLATIONS, MAJORITY).field(name).nullable else [])]
        row = row | {name: value + 3}  # so that 0 is another value
        rows[0] = row
    checksums = [_checksum(rows), *(_checksum([row | {name: other}, rows[1]]) for other in others)]
    assert len(set(checksums)) == len(checksums)


def test_checksum_covers_the_order_of_rows() -> None:
    """The same rows in another order have another checksum."""
    assert _checksum(_example()) != _checksum(_example()[::-1])


def test_metadata_is_read_as_it_was_given() -> None:
    """The metadata is read as it was given, with the checksum added."""
    given_metadata = {"run_id": "abc", "shard": {"name": "ä.tar", "size": 2**40}, "seconds": 1.5}
    data = _encode(_example(), given_metadata)
    assert parse_metadata(data, "a file").as_json() == given_metadata | {"columns_sha256": columns_sha256(_read(data))}


def test_numbers_have_a_place_holder_where_a_row_has_none() -> None:
    column = pa.chunked_array([pa.array([3, None], pa.int32()), pa.array([0], pa.int32())])
    assert numbers_of(column).tolist() == [3, ABSENT, 0]
    assert numbers_of(column, -2).tolist() == [3, -2, 0]


def test_values_are_spread_over_the_rows_that_have_one() -> None:
    """In order; the other rows get null."""
    there = np.array([False, True, True, False])
    assert spread(pa.array([7, 8]), there).to_pylist() == [None, 7, 8, None]
    assert spread(pa.array([], pa.int32()), np.array([False])).to_pylist() == [None]
