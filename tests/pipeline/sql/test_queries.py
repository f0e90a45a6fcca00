"""The questions of docs/queries.md: SQL, Polars and pandas give the same answer, and no file needs our code.

The files open in DuckDB, Polars, pandas and pyarrow as they are, from a folder and from S3.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from pyarrow import fs

from smoothcert.manifests.job import Storage
from smoothcert.pipeline.sql.relations import connect
from smoothcert.workers.runs.run import open_run
from tests.helpers.house import HOUSE
from tests.helpers.judged_runs import CLASSES, CROP, image, judged_run

PAGE = (HOUSE / "docs" / "queries.md").read_text()
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def questions() -> Iterator[tuple[str, dict[str, str]]]:
    """The headings with their blocks: `sql`, and of Python those that begin with the name of a tool."""
    for section in PAGE.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        blocks = {
            kind if kind == "sql" else block.splitlines()[0].removeprefix("# "): block
            for kind, block in BLOCK.findall(text)
        }
        yield heading, blocks


QUESTIONS = {heading: blocks for heading, blocks in questions() if "sql" in blocks}
PREAMBLE = BLOCK.findall(PAGE.split("\n## ")[0])[-1][1]


def normal(rows: Iterable[Iterable[Any]]) -> list[tuple[Any, ...]]:
    """Rows that can be compared: rounded, null as None, sorted."""

    def value(one: Any) -> Any:
        if one is None or (isinstance(one, float) and math.isnan(one)):
            return None
        return round(float(one), 6) if isinstance(one, int | float) or hasattr(one, "dtype") else str(one)

    return sorted((tuple(map(value, row)) for row in rows), key=str)


def run_block(block: str, run: Path) -> Any:
    names: dict[str, Any] = {"RUN": str(run)}
    exec(PREAMBLE + block, names)
    return names["answer"]


def test_the_page_has_a_dozen_questions() -> None:
    assert len(QUESTIONS) >= 12
    assert all(blocks.keys() == {"sql", "Polars", "pandas"} for blocks in QUESTIONS.values())


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every question has an answer: random votes, labels, margins and clean predictions."""
    random, images = np.random.default_rng(0), []

    def sometimes(number: int) -> int:
        return number % CLASSES if random.random() < 0.7 else int(random.integers(0, CLASSES))

    for number in range(60):
        votes = np.where(random.random(CROP) < 0.8, number % CLASSES, random.integers(0, CLASSES, CROP)).tolist()
        made = image(f"{number:02d}", votes, sometimes(number), margins=random.random(CROP) ** 8)
        images.append(made | {"clean_prediction": made["label"] if number % 3 else 1})
    images[5] = image("05", None)
    images[6] |= {"label": None, "status": "label_error", "error": "it is no number"}
    return Path(judged_run(tmp_path_factory.mktemp("varied"), {"a.tar": images[:40], "b.tar": images[40:]}).url)


@pytest.mark.parametrize("heading", QUESTIONS)
def test_three_tools_give_the_same_answer(heading: str, varied: Path) -> None:
    """Columns have the same names, rows the same values."""
    blocks = QUESTIONS[heading]
    relation = connect([open_run(str(varied))], Storage()).sql(blocks["sql"])
    polars, pandas = run_block(blocks["Polars"], varied), run_block(blocks["pandas"], varied)
    assert relation.columns == polars.columns == list(pandas.columns)
    expected = normal(relation.fetchall())
    assert expected
    assert normal(polars.rows()) == expected
    assert normal(pandas.itertuples(index=False)) == expected


@pytest.mark.usefixtures("ray_here")
def test_ray_data_answers_for_large_outputs(finished: Path) -> None:
    (block,) = [blocks["Ray Data"] for _, blocks in questions() if "Ray Data" in blocks]
    question = "select avg((certified and correct)::int) from certified where side = 2 and rule = 'exact'"
    ((expected,),) = connect([open_run(str(finished))], Storage()).sql(question).fetchall()
    assert run_block(block, finished) == pytest.approx(expected)


def test_the_files_open_without_us_from_a_folder(finished: Path) -> None:
    """All rows and columns, in four tools."""
    files = f"{finished}/votes/*.parquet"
    (counted,) = duckdb.sql(f"select count(*), sum(len(votes)) from '{files}'").fetchall()
    frame, lazy = pd.read_parquet(finished / "votes"), pl.read_parquet(files)
    table = ds.dataset(finished / "votes").to_table()
    assert counted[0] == len(frame) == len(lazy) == len(table) == 13
    assert counted[1] == sum(len(votes) for votes in frame.votes.dropna())
    assert list(frame.columns) == lazy.columns == table.column_names


def test_the_files_open_without_us_from_s3(finished: Path, bucket: str) -> None:
    """With each tool's own way to S3; DuckDB takes Arrow's, as its own must be downloaded."""
    client = boto3.client("s3")
    for path in (finished / "votes").iterdir():
        client.upload_file(str(path), bucket, f"run/votes/{path.name}")
    endpoint, key, secret = (
        os.environ[f"AWS_{name}"] for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    )
    system = fs.S3FileSystem(access_key=key, secret_key=secret, endpoint_override=endpoint, region="us-east-1")
    files = ds.dataset(f"{bucket}/run/votes", filesystem=system)
    assert files.count_rows() == 13
    assert duckdb.sql("select count(*) from files").fetchall() == [(13,)]
    assert len(pd.read_parquet(f"{bucket}/run/votes", filesystem=system)) == 13
    options = {"aws_endpoint_url": endpoint, "aws_access_key_id": key, "aws_secret_access_key": secret}
    options |= {"aws_region": "us-east-1", "aws_allow_http": "true"}
    assert (
        pl.scan_parquet(f"s3://{bucket}/run/votes/*.parquet", storage_options=options).select(pl.len()).collect().item()
        == 13
    )
