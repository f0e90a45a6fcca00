"""Write docs/reference/: the keys of job, suite and training files, and what is in every file that smoothcert writes.

    python -m scripts.reference

The pages come from the code: keys, types, defaults and limits from the models, meanings from the sentences beside the
fields. A test (tests/scripts/test_reference.py) fails if a page is not what this script writes.
"""

import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
from pydantic import BaseModel

from smoothcert.manifests.gates import Gates
from smoothcert.manifests.job import Auto, Job, OneOrMore
from smoothcert.manifests.studies import KINDS
from smoothcert.manifests.suite import SHARED, SuiteFile
from smoothcert.manifests.training import Training
from smoothcert.manifests.yaml_file import Part
from smoothcert.pipeline.compare.pairs import CHANGES
from smoothcert.pipeline.nightly.records import AcceptanceRecord, NightRecord
from smoothcert.pipeline.pack.records import PackIndex
from smoothcert.pipeline.query.answers import SCHEMA
from smoothcert.pipeline.report.record import KEYS
from smoothcert.workers.certificates.double_masking import DOUBLE_MASKING
from smoothcert.workers.certificates.families import MAJORITY
from smoothcert.workers.runs import votes_table
from smoothcert.workers.runs.records import (
    AttemptRecord,
    DriverRecord,
    FileMetadata,
    IntroductionRecord,
    RunRecord,
    SuccessRecord,
    TrainingRecord,
)
from smoothcert.workers.studies.measures import columns_of
from smoothcert.workers.studies.study import StudyRecord, StudySuccess
from smoothcert.workers.studies.worker import COLUMNS
from smoothcert.workers.training.curves import Figures

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
NOTE = "<!-- Written by `python -m scripts.reference` from the code; change the code, then run it. -->"
_WORDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_A = 224  # any number of ablations

Row = tuple[str, ...]
Schema = Mapping[str, Any]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each page, by its name."""
    return {"files.md": files_page(), "job.md": job_page(), "suite.md": suite_page()}


# Tables


def table(head: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def type_of(schema: Schema, parts: Schema) -> str:
    """A type of JSON schema in words; `parts` holds what it refers to."""

    def within(one: Schema) -> str:
        return type_of(one, parts)

    if branches := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(within, branches)))
    if "$ref" in schema:
        return within(parts[schema["$ref"].rpartition("/")[2]])
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "properties" in schema:
        return "mapping"
    if schema.get("format") == "date":
        return "date"
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])} {_plural(within(schema['prefixItems'][0]))}"
        return f"list of {_plural(within(schema['items']))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"mapping to {_plural(within(values))}" if isinstance(values, dict) and values else "mapping"
    limits = [f"{sign} {schema[name]}" for name, sign in _LIMITS.items() if name in schema]
    return " ".join([_WORDS[kind], ", ".join(limits)]).strip() if kind else "any value"


def _plural(kind: str) -> str:
    first, _, rest = kind.partition(" ")
    many = first if first in ("text", "any", "true") or "`" in first else f"{first}s"
    return f"{many} {rest}".strip()


# The pages of jobs and suites


def job_page() -> str:
    job, training = _sections(Job), _sections(Training)
    text = [
        "# The keys of a job, a training and a gate file",
        NOTE,
        "A key without a default must be there. Relative paths start from the folder of the file; those in "
        "`--set KEY.PATH=VALUE` from the current folder.",
        "## Job files",
        *_rendered(job),
        "## Training files",
        "Sections with the keys of a job file are not repeated. [training.md](../training.md) explains the rest.",
        *_rendered({name: section for name, section in training.items() if section not in job.values()}),
        "## Gate files",
        "For `compare --gate` ([compare.md](../compare.md)).",
        *_rendered(_sections(Gates)),
    ]
    return "\n\n".join(text) + "\n"


def suite_page() -> str:
    shared = ", ".join(f"`{key}`" for key in SHARED)
    text = [
        "# The keys of a suite file",
        NOTE,
        "A suite certifies several jobs on the same images. At the top it has the keys below and any key of a job file "
        "([job.md](job.md)), which then holds for all entries. "
        "[models.md](../models.md#several-jobs-in-one-file-a-suite) explains the rest.",
        *_rendered(_sections(SuiteFile)),
        "## An entry",
        f"Any key of a job file except {shared}, which all entries share; and `gates`. Its own keys win over those at "
        "the top: single keys of `model`, `preprocess` and `ablation`; of anything else, `model.options` too, the "
        "whole value.",
    ]
    return "\n\n".join(text) + "\n"


def _sections(model: type[Part], name: str = "") -> dict[str, type[Part]]:
    """A model and its parts, by key path; of a part that has several kinds, one for each."""
    found = {name: model}
    for key, field in model.model_fields.items():
        parts, path = _parts_in(field.annotation), f"{name}.{field.alias or key}".lstrip(".")
        for part in parts:
            found |= _sections(part, path if len(parts) == 1 else f"{path}` of kind `{_kinds_of(part)}")
    return found


def _parts_in(annotation: Any) -> list[type[Part]]:
    """The parts that a field holds: by itself, in a list, or if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts_in(inner)]


def _kinds_of(part: type[Part]) -> str:
    return "`, `".join(get_args(part.model_fields["kind"].annotation))


def _rendered(sections: Mapping[str, type[Part]]) -> Iterator[str]:
    for name, model in sections.items():
        if name:
            yield f"### `{name}`"
        yield table(["key", "type", "default", "meaning"], list(_keys(model)))


def _keys(model: type[Part]) -> Iterator[Row]:
    schema = model.model_json_schema(by_alias=True)
    for key, field in model.model_fields.items():
        name = field.alias or key
        kind = type_of(schema["properties"][name], schema.get("$defs", {}))
        default = "" if field.is_required() else _default(field.get_default(call_default_factory=True))
        if OneOrMore in field.metadata:
            kind = f"{kind}, or one of them"
        if Auto in field.metadata:
            kind, default = kind.replace("null", "`auto`"), "`auto`"
        yield f"`{name}`", kind, default, _one_line(field.description)


def _default(value: Any) -> str:
    """As YAML writes it; a part has the defaults of its keys."""
    if isinstance(value, Part):
        return "that of each key"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


# The page of files


def files_page() -> str:
    votes, masks = votes_table.schema(_A, MAJORITY), votes_table.schema(_A, DOUBLE_MASKING)
    text = [
        "# The files that smoothcert writes",
        NOTE,
        "## A run: OUTPUT/RUN_ID/",
        "### votes/00000-NAME.parquet",
        "One for each tar, a row for each image, in the order of the tar. A = number of ablations. "
        "`pd.read_parquet` and other tools read the folder `OUTPUT/RUN_ID/votes` as one table "
        "([queries.md](../queries.md)).",
        table(
            ["column", "type", "null", "meaning"],
            [_column(field, _meanings_of_votes()[field.name]) for field in votes],
        ),
        "In a run of masks ([masks.md](../masks.md)), `prediction` is the class that double masking predicts; "
        "`count`, `runner_up`, `runner_up_count` and the two `max_*` columns are null. Its files end with:",
        table(
            ["column", "type", "null", "meaning"],
            [_column(field, _meanings_of_votes()[field.name]) for field in masks if field.name not in votes.names],
        ),
        "The metadata of the file under the key `smoothcert` is a JSON object:",
        _record(FileMetadata),
        "### run.json",
        "Written first, once.",
        _record(RunRecord),
        "### _SUCCESS",
        "Written last.",
        _record(SuccessRecord),
        "### introduction.json",
        "What the first actor says about itself; the others must agree.",
        _record(IntroductionRecord),
        "### drivers/*.jsonl",
        "What a driver did. A line for each attempt at a shard:",
        _record(AttemptRecord),
        "The last line is of the driver:",
        _record(DriverRecord),
        "### studies/STUDY_ID/study.json",
        "What a study measures: an attack ([attacks.md](../attacks.md)), sensitivity or amplification "
        "([sensitivity.md](../sensitivity.md)). Written first.",
        _record(StudyRecord),
        "### studies/STUDY_ID/rows/00000-NAME.parquet",
        "A row for each image. The metadata of each column holds its `meaning`. Every study has these columns:",
        _schema(pa.schema(COLUMNS)),
        *(
            text
            for kind in KINDS.values()
            for text in (f"Of a study of kind `{kind.kind}` also:", _schema(columns_of(kind)))
        ),
        "### studies/STUDY_ID/_SUCCESS",
        "Written last.",
        _record(StudySuccess),
        "### quarantine/TIME/",
        "Files that `smoothcert repair` moved away, as they were, under the names that they had in the run.",
        "## nightly: OUTPUT/history/",
        "`index.html` is the page, made from the records; `reports/NIGHT/ENTRY/` has the pages of a night.",
        "### nights/NIGHT.json",
        "A night, published once. The names sort by time.",
        _record(NightRecord),
        "### accepted/HASH-TIME-UNIQUE.json",
        "A run becomes the baseline of an entry, whose hash the name has. Published once; the last one of an entry "
        "counts.",
        _record(AcceptanceRecord),
        "## query --parquet OUT",
        "A row for each question and image. The metadata under the key `smoothcert` is a JSON object with `run_id`, "
        "`job`, `checkpoint_sha256`, `complete`, `partial`, `shards` and `published` ([json.md](../json.md)). The "
        "metadata of each column holds its `meaning`.",
        _schema(SCHEMA),
        "## compare --parquet OUT",
        "A row for each image and certificate that was lost or gained, or holds for another class. The metadata of "
        "each column holds its `meaning`.",
        _schema(CHANGES),
        "## report: report.json",
        "A *share* is an object with `count`, `images`, `share` (from 0 to 1) and its exact 95 % `interval`.",
        table(["key", "meaning"], [(f"`{key}`", meaning) for key, meaning in KEYS.items()]),
        "## pack OUT: index.json",
        "Written last. `left_out.csv` beside it has a line for each thing that was left out: `name`, `reason` and "
        "`detail`.",
        _record(PackIndex),
        "## finetune: OUTPUT/NAME/",
        "### training.json",
        "Written first.",
        _record(TrainingRecord),
        "### curve.jsonl",
        "A line for each epoch. `checkpoints/epoch-NNNN.jsonl` is the curve so far.",
        table(["key", "type", "meaning"], list(_fields(Figures))),
        "### weights.safetensors",
        "The trained weights, for `model.checkpoint` of a job; written last.",
    ]
    return "\n\n".join(text) + "\n"


def _meanings_of_votes() -> dict[str, str]:
    return {
        name: text
        for record in (
            DOUBLE_MASKING.predicted,
            DOUBLE_MASKING.certified,
            votes_table.Row,
            MAJORITY.predicted,
            MAJORITY.certified,
        )
        for name, text in docstrings_of(record).items()
    }


def _schema(schema: pa.Schema) -> str:
    rows = [_column(field, field.metadata[b"meaning"].decode()) for field in schema]
    return table(["column", "type", "null", "meaning"], rows)


def _column(field: pa.Field, meaning: str) -> Row:
    kind = field.type
    if pa.types.is_dictionary(kind):
        text = f"{kind.value_type} (dictionary)"
    elif pa.types.is_fixed_size_list(kind):
        text = f"list of {'A' if kind.list_size == _A else kind.list_size} {kind.value_type}"
    elif pa.types.is_list(kind) and not pa.types.is_fixed_size_list(kind.value_type):
        text = f"list of {kind.value_type}"
    elif pa.types.is_list(kind):
        text = f"list of lists of {kind.value_type.list_size} {kind.value_type.value_type}"
    elif pa.types.is_fixed_size_binary(kind):
        text = f"{kind.byte_width} bytes"
    else:
        text = str(kind)
    return f"`{field.name}`", text, "yes" if field.nullable else "no", meaning


def _record(model: type[BaseModel]) -> str:
    return table(["key", "type", "meaning"], list(_keys_of_record(model)))


def _keys_of_record(model: type[BaseModel], prefix: str = "") -> Iterator[Row]:
    """The keys of a JSON object, those of the objects in it below their own."""
    schema, meanings = model.model_json_schema(), docstrings_of(model)
    for name, field in model.model_fields.items():
        kind = type_of(schema["properties"][name], schema.get("$defs", {}))
        yield f"`{prefix}{name}`", kind, meanings[name]
        if (part := _record_in(field.annotation)) is not None:
            in_list = kind.startswith("list")
            yield from _keys_of_record(part, f"{prefix}{name}{'[]' if in_list else ''}.")


def _record_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_record_in, get_args(annotation))), None)


def _fields(record: type[Any]) -> Iterator[Row]:
    meanings = docstrings_of(record)
    for field in dataclasses.fields(record):
        plain = isinstance(field.type, type) and not get_args(field.type)
        kind = str(field.type.__name__ if plain else field.type).replace("None", "null").replace(" | ", " or ")
        words = {"int": "integer", "float": "number", "str": "text", "dict[str, float]": "mapping to numbers"}
        yield f"`{field.name}`", " or ".join(words.get(one, one) for one in kind.split(" or ")), meanings[field.name]


def docstrings_of(record: type[Any]) -> dict[str, str]:
    """The text below each field of a class and of the classes that it extends."""
    found: dict[str, str] = {}
    for one in reversed(record.__mro__):
        if one.__module__.startswith("smoothcert."):
            body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
            assert isinstance(body, ast.ClassDef)
            for line, below in zip(body.body, body.body[1:], strict=False):
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and _is_text(below):
                    found[line.target.id] = _one_line(below.value.value)  # type: ignore[attr-defined]
    return found


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


if __name__ == "__main__":
    main()
