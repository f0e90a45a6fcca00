"""Answers of `smoothcert query`: a table for people, JSON for machines, Parquet for each image."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.table import Column, Table

from manifests.errors import RequestError
from pipeline.plan import Run
from pipeline.query import Answered, Counts, PerImage, Question, Result
from workers.touched import MAX_LISTED


class AnswersFile:
    """A Parquet file with a row for each image with votes and each question; it appears when it is whole."""

    _SCHEMA = pa.schema(
        [
            ("shard", pa.string()),
            ("key", pa.string()),
            ("patch_height", pa.int32()),
            ("patch_width", pa.int32()),
            ("patches", pa.int32()),
            ("stride", pa.int32()),
            ("tolerance", pa.float64()),
            ("rule", pa.string()),
            ("label", pa.int32()),
            ("prediction", pa.int32()),
            ("certified", pa.bool_()),
            ("slack", pa.int32()),
            ("is_bound", pa.bool_()),
            ("weakest", pa.list_(pa.list_(pa.int32(), 2))),
        ]
    )

    def __init__(self, path: Path) -> None:
        if path.exists() or not path.name:
            raise RequestError(f"--parquet {path}: is there already; name a new file")
        self._path, self._aside = path, path.with_name(f".{path.name}.part")
        try:
            self._writer = pq.ParquetWriter(self._aside, self._SCHEMA, compression="zstd")
        except OSError as error:
            raise RequestError(f"--parquet {path}: cannot be written ({error.strerror}); name another file") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            self._aside.replace(self._path)
        else:
            self._aside.unlink()

    def __call__(self, voted: pa.Table, question: Question, answered: Answered) -> None:
        """Add the images of one file; `weakest` holds top and left pixel of each patch where the slack is smallest."""
        answer = answered.answer
        same = {
            "patch_height": question.height,
            "patch_width": question.width,
            **{name: getattr(question, name) for name in ("patches", "stride", "tolerance", "rule")},
            "is_bound": answer.is_bound,
        }
        columns: dict[str, Any] = {name: pa.repeat(value, len(voted)) for name, value in same.items()}
        columns |= {"shard": voted["shard"], "key": voted["key"], "label": voted["label"]}
        columns |= {"prediction": answered.prediction, "certified": answer.certified, "slack": answer.slack}
        columns["weakest"] = pa.array([None if answer.is_bound else place for place in answer.places.tolist()])
        table = pa.table({field.name: columns[field.name] for field in self._SCHEMA})
        self._writer.write_table(table.cast(self._SCHEMA))


def writer(path: Path | None) -> AbstractContextManager[PerImage | None]:
    """What `query` gives the answers for each image to; nothing without a path."""
    return nullcontext() if path is None else AnswersFile(path)


def table_of(results: Sequence[Result], *, labelled: bool) -> Table:
    """What is printed; shares of all images, those without votes included. What all rows share is the title."""
    rows = [
        _asked(result.question) | _answered(name, counts, result, labelled=labelled)
        for result in results
        for name, counts in _in_order(result)
    ]
    shared = {title for title in _asked(results[0].question) if len({row[title] for row in rows}) == 1}
    titles = [title for title in rows[0] if title not in shared]
    table = Table(
        *(Column(title, justify="right", no_wrap=True) for title in titles),
        title=", ".join(f"{title} {rows[0][title]}" for title in rows[0] if title in shared),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    return table


def _asked(question: Question) -> dict[str, str]:
    return {
        "patch": f"{question.height} x {question.width}",
        "patches": str(question.patches),
        "stride": str(question.stride),
        "tolerance": f"{question.tolerance:g}",
        "rule": question.rule,
    }


def _answered(name: int | None, counts: Counts, result: Result, *, labelled: bool) -> dict[str, str]:
    at_least = ">= " if result.is_bound else ""
    cells = {"class": "all" if name is None else str(name)} if len(result.classes) > 1 else {}
    cells["images"] = f"{counts.images:,}"
    if labelled:
        cells["correct"] = _percent(counts.correct, counts.images)
    cells["certified"] = at_least + _percent(counts.certified, counts.images)
    if labelled:
        cells["certified\ncorrect"] = at_least + _percent(counts.certified_correct, counts.images)
    return cells


def as_json(results: Sequence[Result], *, labelled: bool) -> list[dict[str, Any]]:
    """One object a question and class; `correct` and `certified_correct` are null without labels."""
    return [
        {
            "patch": [result.question.height, result.question.width],
            "patches": result.question.patches,
            "stride": result.question.stride,
            "tolerance": result.question.tolerance,
            "rule": result.question.rule,
            "class": name,
            "images": counts.images,
            "certified": counts.certified,
            "correct": counts.correct if labelled else None,
            "certified_correct": counts.certified_correct if labelled else None,
            "is_bound": result.is_bound,
        }
        for result in results
        for name, counts in _in_order(result)
    ]


def notices_of(run: Run, results: Sequence[Result]) -> list[str]:
    """What a reader of the answers must know besides."""
    notices = []
    if missing := run.missing():
        done = len(run.tasks) - len(missing)
        notices.append(f"the run is not finished: answers are of {done} of {len(run.tasks)} shards")
    if run.partial:
        notices.append("the run is PARTIAL: its job has images.limit")
    if any(result.is_bound for result in results):
        notices.append(
            ">= is a sound bound: the patches have too many different places together to try each "
            f"(places x ablations above {MAX_LISTED:,})"
        )
    without = [
        (result.classes[None].images, sum(counts.images for name, counts in result.classes.items() if name is not None))
        for result in results
        if len(result.classes) > 1
    ]
    if unknown := max((everyone - known for everyone, known in without), default=0):
        notices.append(f"{unknown:,} images have no class and are counted under all only")
    return notices


def _in_order(result: Result) -> list[tuple[int | None, Counts]]:
    return sorted(result.classes.items(), key=lambda entry: -1 if entry[0] is None else entry[0])


def _percent(count: int, images: int) -> str:
    return f"{100 * count / images:.2f} %" if images else "-"
