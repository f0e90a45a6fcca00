"""Check a run with other code than made it: recount every row, hash every file, compare all with all.

Reads Parquet, run.json and _SUCCESS alone, and shares no code with geometry.py, certificates.py, votes_table.py or
summary.py, so that a defect there shows here as a contradiction. Where they are quick this is plain: each pixel has
the set of ablations that show it, a patch touches the union over its pixels, and both rules stand here as
docs/certificates.md states them.

Found: whatever contradicts the votes (prediction, counts, runner-up, max columns), the job (run id, identity,
geometry, classes, limit), its own row (status, label, image size, nulls), the rows before it (key, index, place in
the tar), the checksum of the columns, or the hash and the figures in _SUCCESS.

Not found: what contradicts nothing. Hashes find corruption, not forgery: whoever renews checksum, hashes and figures
too can change labels, margins and image hashes, or votes with all that follows from them, drop rows of a shard
without limit, turn a row into an error. `--replay` asks the tars and the checkpoint again (replay.py).
"""

import hashlib
import io
import json
import re
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage
from smoothcert.workers.storage.store import AnyStore, Store

Row = dict[str, Any]
Findings = Iterator[tuple[str, str]]
"""A column of a row, and what is wrong there."""
Ranked = Sequence[tuple[int, int]]
"""Classes and their votes, as `_ranked` orders them."""
Numbers = NDArray[np.float32]
Heard = Callable[[str, int, int], None]
"""Is told what is done, how much of it, and how much there is of it in all."""

_REQUIRED = ("key", "shard", "index", "image_offset", "image_bytes", "sha256", "status")
_CLEAN = ("clean_prediction", "clean_margin")
_MAX = ("max_certified_patch", "max_margin_certified_patch")
_OF_VOTES = ("votes", "margins", "prediction", "count", "runner_up", "runner_up_count", *_MAX)
_STATUSES = ("ok", "label_error", "model_error", "too_large", "size_error", "decode_error")
_MAX_PIXELS = 64 * 1000**2
_BLOCK = 512  # of a tar
_ROWS_AT_ONCE = 1024
_IS_MISSING = ": is missing, though _SUCCESS is there"
_TOLD = 100  # problems of a column of a file; the others are counted
_ELSEWHERE = {"shards", "split", "limit", "checkpoint", "checkpoint_key"}  # an identity has them in its own form
_DEFAULTS: dict[str, dict[str, Any]] = {  # an identity leaves them out
    "images": {"image": ["jpg", "jpeg", "png", "webp"], "label": "cls", "first_label": 0, "version": None},
    "model": {"options": {}, "ignore": [], "dtype": "float32", "masked_tokens": "drop"},
    "preprocess": {"resize": 256, "crop": 224, "interpolation": "bilinear", "orient": False}
    | {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "upsample": 1},
    "ablation": {"stride": 1, "edges": "wrap"},
}


@dataclass(frozen=True)
class Figures:
    """What the rows amount to, counted here; shares are of all rows. An accuracy without labels is None.

    Attributes:
        status: rows of each status.
        labels: rows with a usable label; None in a job without labels.
        certified: entries as in _SUCCESS, for the patches of the job.
    """

    status: dict[str, int]
    labels: int | None
    clean_accuracy: float | None
    smoothed_accuracy: float | None
    certified: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Report:
    """Which run it is, how much of it was looked at, what is wrong with it, and what else is worth knowing.

    Attributes:
        complete: _SUCCESS and the files of all shards are there.
        shards: how many the run has.
        limit: images.limit of a PARTIAL run, else None.
        problems, notices: a line each.
    """

    run_id: str
    job: str
    checkpoint: str
    checkpoint_sha256: str
    complete: bool
    partial: bool
    limit: int | None
    shards: int
    files: int
    rows: int
    figures: Figures
    problems: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def wrong(self) -> tuple[str, ...]:
        """The problems of what is there: an incomplete run may be allowed, a wrong one is not."""
        return tuple(problem for problem in self.problems if not problem.endswith(_IS_MISSING))


@dataclass(frozen=True)
class Frame:
    """The ablations of an image of `side` x `side` pixels."""

    kind: str
    size: int
    stride: int
    edges: str
    side: int

    @property
    def offsets(self) -> range:
        return range(0, self.side if self.edges == "wrap" else self.side - self.size + 1, self.stride)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of vertical and of horizontal offsets."""
        return (1 if self.kind == "column" else len(self.offsets)), (1 if self.kind == "row" else len(self.offsets))


@dataclass(frozen=True)
class Run:
    """A run's folder and its run.json; `shards` by the names of their files of votes."""

    url: str
    store: Store
    record: Mapping[str, Any]
    frame: Frame
    shards: Mapping[str, Mapping[str, Any]]

    @property
    def job(self) -> Mapping[str, Any]:
        return self.record["job"]

    @property
    def labelled(self) -> bool:
        return self.job["images"]["label"] is not None

    @property
    def classes(self) -> int:
        return self.job["model"]["classes"]


@dataclass
class _Tally:
    """What the readable files add up to; the max columns are counted where the prediction is right."""

    files: list[str] = field(default_factory=list)
    rows: int = 0
    labels: int = 0
    status: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    largest: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, row: Row, *, labelled: bool) -> None:
        self.rows += 1
        self.labels += row["label"] is not None
        self.status[row["status"]] += 1
        self.right["clean"] += row["label"] is not None and row["clean_prediction"] == row["label"]
        if row["prediction"] is not None and (not labelled or row["prediction"] == row["label"]):
            self.right["smoothed"] += 1
            self.largest.update((name, row[name] or 0) for name in _MAX)

    def share(self, count: int) -> float:
        return count / self.rows if self.rows else 0.0

    def figures(self, run: "Run") -> Figures:
        """What the rows that could be read amount to."""
        clean, smoothed = (self.share(self.right[name]) if self.labels else None for name in ("clean", "smoothed"))
        return Figures(
            dict(self.status),
            self.labels if run.labelled else None,
            clean if run.job["clean"] else None,
            smoothed,
            tuple(self.certified({"patch": [side, side]}, labelled=run.labelled) for side in run.job["patches"]),
        )

    def certified(self, entry: Any, *, labelled: bool) -> dict[str, Any]:
        """An entry of `certified` in _SUCCESS as it should be."""
        match entry:
            case {"patch": [int(side), _]} if labelled and not self.labels:
                return {"patch": [side, side], "exact": None, "margin": None}
            case {"patch": [int(side), _]}:
                exact, margin = (
                    self.share(sum(n for (column, most), n in self.largest.items() if column == name and most >= side))
                    for name in _MAX
                )
                return {"patch": [side, side], "exact": exact, "margin": margin}
        return {"patch": "of two equal sides"}


@dataclass
class _Place:
    """How far the rows of a file have come. A wrong shard or index that goes on is named once, where it begins."""

    shard: str  # of the row before
    shift: int = 0  # its index minus its position
    end: int = 0  # of its image in the tar, with the padding
    rows: dict[str, int] = field(default_factory=dict)  # the first of each key


def verify(
    url: str,
    *,
    replay: int = 0,
    seed: int | None = None,
    storage: Storage = Storage(),  # noqa: B008  frozen
    hear: Heard = lambda *_: None,
) -> Report:
    """Check all that is there of a run.

    Args:
        url: the run's folder, with run.json.
        replay: number of random images to vote on again, with the tars and the checkpoint that run.json names.
        seed: of their choice; None for a new one.
        storage: how to reach the run; its tars and checkpoint are reached as its job says.
        hear: is told how far the check has come.
    Raises:
        RequestError: run.json is missing or damaged; to replay, a tar or the checkpoint is missing.
    """
    run = open_run(url, storage)
    success = _read_success(run)  # before the listing: it is written last
    there = {f"votes/{Path(entry.url).name}" for entry in run.store.files(f"{run.url}/votes")}
    published = [name for name in run.shards if name in there]
    tally, notices = _Tally(), list[str]()
    problems = [*_record_problems(run)]
    problems += [f"{name}: is of no shard of this run" for name in sorted(there - run.shards.keys())]
    for done, name in enumerate(published):
        hear("files", done, len(published))
        problems += _file_problems(run, name, success, tally)
    if success is None:
        notices.append(f"unfinished: {len(published)} of {len(run.shards)} shards are published")
    else:
        problems += _success_problems(run, success, published, tally)
    hear("files", len(published), len(published))
    if replay:
        hear("images to replay, the model is loading", 0, replay)
        from smoothcert.pipeline.verify.replay import replay as replay_images  # loads torch

        again = replay_images(run, tally.files, replay, secrets.randbelow(2**32) if seed is None else seed, hear)
        problems, notices = [*problems, *again.problems], [*notices, *again.notices]
    record = run.record
    return Report(
        run_id=record["run_id"],
        job=str(record["name"]),
        checkpoint=str(record["checkpoint"]["url"]),
        checkpoint_sha256=str(record["checkpoint"]["sha256"]),
        complete=success is not None and len(published) == len(run.shards),
        partial=bool(record["partial"]),
        limit=int(run.job["images"]["limit"] or 0) if record["partial"] else None,
        shards=len(run.shards),
        files=len(published),
        rows=tally.rows,
        figures=tally.figures(run),
        problems=tuple(problems),
        notices=tuple(notices),
    )


# run.json and _SUCCESS


def open_run(url: str, storage: Storage) -> Run:
    """Read run.json.

    Raises:
        RequestError: it is missing or damaged.
    """
    url = url.rstrip("/")
    store = AnyStore(storage)
    if store.find(f"{url}/run.json") is None:
        runs = [folder for folder in store.folders(url)[:20] if store.find(f"{folder}/run.json") is not None]
        such_as = f", such as {runs[0]}" if runs else ""
        raise RequestError(f"{url}: holds no run.json; name the folder of a run, OUTPUT/RUN_ID{such_as}")
    try:
        record = json.loads(store.read(f"{url}/run.json"))
        job = record["job"]
        frame = Frame(side=job["preprocess"]["crop"], **job["ablation"])
        resize = job["preprocess"]["resize"]
        numbers = [frame.size, frame.stride, frame.side, job["model"]["classes"], *([] if resize is None else [resize])]
        numbers += [shard["size"] for shard in record["shards"]]
        known = frame.kind in ("column", "row", "block") and frame.edges in ("wrap", "inside")
        known &= job["model"]["classes"] >= 2
        if not known or not all(type(number) is int and number >= 1 for number in numbers) or frame.size > frame.side:
            raise ValueError(f"{frame}, numbers {numbers}")
        shards = {
            f"votes/{index:05d}-{shard['name'].removesuffix('.tar')}.parquet": shard
            for index, shard in enumerate(record["shards"])
            if shard["limit"] != 0
        }
        run = Run(url, store, record, frame, shards)
        # The rest that is needed is there.
        _ = [*_record_problems(run), run.labelled, *map(int, [*job["patches"], job["images"]["limit"] or 0])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{url}/run.json is damaged ({error!r}); restore it") from None
    return run


def _record_problems(run: Run) -> Iterator[str]:
    """run.json against itself."""
    record = run.record
    canonical = json.dumps(record["identity"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    run_id = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    if run_id != record["run_id"]:
        yield f"run.json run_id: is {record['run_id']}, the identity gives {run_id}"
    stored, expected = _flat(record["identity"]), _flat(_identity_of(record))
    for key in sorted(stored.keys() | expected.keys()):
        found, given = (side.get(key, "left out") for side in (stored, expected))
        if found != given:
            yield f"run.json identity.{key}: is {found}, the other entries give {given}"
    limits, limit = [shard["limit"] for shard in record["shards"]], record["job"]["images"]["limit"]
    for key, found, given in (
        ("name", record["name"], record["job"]["name"]),
        ("checkpoint.url", record["checkpoint"]["url"], record["job"]["model"]["checkpoint"]),
    ):
        if found != given:
            yield f"run.json {key}: is {found}, the job says {given}"
    if sum(limits) != limit if record["partial"] else any(part is not None for part in limits):
        yield f"run.json shards: their limits do not go with images.limit {limit}, partial {record['partial']}"


def _identity_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that the job, the shards and the checkpoint of run.json give."""
    job, checkpoint = record["job"], record["checkpoint"]
    identity: dict[str, Any] = {
        part: {k: v for k, v in job[part].items() if k not in _ELSEWHERE and not (k in usual and v == usual[k])}
        for part, usual in _DEFAULTS.items()
    }
    identity["images"]["shards"] = [[shard["name"], shard["size"]] for shard in record["shards"]]
    identity["images"] |= {"limit": job["images"]["limit"]} if record["partial"] else {}
    identity["model"]["checkpoint_sha256"] = checkpoint["sha256"]
    identity["model"] |= {} if checkpoint["key"] is None else {"checkpoint_key": checkpoint["key"]}
    identity |= {} if job["clean"] else {"clean": False}
    return identity | {"votes_version": record["votes_version"]}


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    parts = {part: value if isinstance(value, dict) else {"": value} for part, value in identity.items()}
    return {f"{part}.{key}".rstrip("."): value for part, values in parts.items() for key, value in values.items()}


def _read_success(run: Run) -> Mapping[str, Any] | None:
    """_SUCCESS; {} where it is damaged, None where it is missing."""
    if run.store.find(f"{run.url}/_SUCCESS") is None:
        return None
    try:
        success = json.loads(run.store.read(f"{run.url}/_SUCCESS"))
    except ValueError:
        return {}
    return success if isinstance(success, dict) and isinstance(success.get("files"), dict) else {}


def _success_problems(run: Run, success: Mapping[str, Any], published: Sequence[str], tally: _Tally) -> Iterator[str]:
    """_SUCCESS against the files, and its figures against the rows if all files could be read."""
    yield from (f"{name}{_IS_MISSING}" for name in run.shards if name not in published)
    if not success:
        yield "_SUCCESS: is damaged, expected a JSON object with the hashes of the files"
        return
    yield from (f"_SUCCESS files: names {name}, of no shard" for name in sorted({*success["files"]} - {*run.shards}))
    if len(tally.files) < len(run.shards):
        return
    figures = tally.figures(run)
    expected = {"rows": tally.rows, "images": tally.rows, "shards": len(run.shards), "status": figures.status}
    expected |= {"clean_accuracy": figures.clean_accuracy, "smoothed_accuracy": figures.smoothed_accuracy}
    if "bad_labels" in success:
        expected["bad_labels"] = figures.status.get("label_error", 0)
    compared = [(name, success.get(name), value) for name, value in expected.items()]
    entries = success.get("certified")
    entries = entries if isinstance(entries, list) else [entries]
    compared += [("certified", entry, tally.certified(entry, labelled=run.labelled)) for entry in entries]
    for name, found, value in compared:
        if found != value:
            yield f"_SUCCESS {name}: is {found}, the rows give {value}"


# A file of votes


def _file_problems(run: Run, name: str, success: Mapping[str, Any] | None, tally: _Tally) -> Iterator[str]:
    """All that is wrong with one file; where the whole of it is unreadable or foreign, one line."""
    data, shard = run.store.read(f"{run.url}/{name}"), run.shards[name]
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            table = file.read()
        table.validate(full=True)
        metadata = json.loads(table.schema.metadata[b"smoothcert"])
        run_id = metadata["run_id"]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        yield f"{name}: cannot be read as a file of votes ({' '.join(str(error).split())})"
        return
    if run_id != run.record["run_id"]:
        yield f"{name}: belongs to run {run_id}"
        return
    sha256 = hashlib.sha256(data).hexdigest()
    if success and success["files"].get(name) != sha256:
        yield f"{name}: its SHA-256 is {sha256}, _SUCCESS says {success['files'].get(name)}"
    schema = _schema(run.frame)
    yield from (f"{name} {problem}" for problem in _schema_problems(table.schema, schema))
    if (table.schema.names, table.schema.types) != (schema.names, schema.types):
        return
    yield from (f"{name} {problem}" for problem in _metadata_problems(run, shard, metadata, table))
    if len(table) != (shard["limit"] or max(len(table), 1)):
        yield f"{name}: has {len(table)} rows, expected {shard['limit'] or 'at least one'}"
    tally.files.append(name)
    place, found = _Place(shard["name"]), Counter[str]()
    for position, row in enumerate(_rows(table)):
        tally.add(row, labelled=run.labelled)
        for column, wrong in _row_findings(run, shard, row, position, place):
            found[column] += 1
            if found[column] <= _TOLD:
                yield f"{name} {line_of(position, row, column, wrong)}"
    for column, times in found.items():
        if times > _TOLD:
            yield f"{name} column {column}: {times - _TOLD:,} more rows are wrong"


def line_of(position: int, row: Row, column: str, wrong: str) -> str:
    return f"row {position} key {row['key']!r} column {column}: {wrong}"


def _schema(frame: Frame) -> pa.Schema:
    text, number, ablations = pa.dictionary(pa.int32(), pa.string()), pa.int32(), frame.grid[0] * frame.grid[1]
    types = {"key": pa.string(), "shard": text, "index": number, "image_offset": pa.int64(), "image_bytes": number}
    types |= {"sha256": pa.binary(32), "status": text, "error": pa.string()}
    types |= dict.fromkeys(("label", "width", "height", "clean_prediction"), number) | {"clean_margin": pa.float32()}
    types |= dict.fromkeys(("prediction", "count", "runner_up", "runner_up_count"), number)
    types |= {"votes": pa.list_(pa.uint16(), ablations), "margins": pa.list_(pa.float32(), ablations)}
    types |= dict.fromkeys(_MAX, number)
    return pa.schema([pa.field(name, kind, nullable=name not in _REQUIRED) for name, kind in types.items()])


def _schema_problems(found: pa.Schema, expected: pa.Schema) -> Iterator[str]:
    if found.names != expected.names:
        yield f"columns: are {found.names}, expected {expected.names}"
        return
    for one, other in zip(found, expected, strict=True):
        if not one.equals(other):
            kinds = [f"{each.type}{'' if each.nullable else ' not null'}" for each in (one, other)]
            yield f"column {one.name}: is {kinds[0]}, expected {kinds[1]}"


def _metadata_problems(
    run: Run, shard: Mapping[str, Any], metadata: Mapping[str, Any], table: pa.Table
) -> Iterator[str]:
    described = metadata.get("shard")
    name, size = (described.get(key) if isinstance(described, dict) else None for key in ("name", "size"))
    for key, found, expected in (
        ("columns_sha256", metadata.get("columns_sha256"), _columns_sha256(table)),
        ("geometry", metadata.get("geometry"), {**run.job["ablation"], "crop": run.frame.side}),
        ("votes_version", metadata.get("votes_version"), run.record["votes_version"]),
        ("shard", [name, size], [shard["name"], shard["size"]]),
    ):
        if found != expected:
            yield f"metadata {key}: is {found}, expected {expected}"
    if not re.fullmatch("[0-9a-f]{64}", str(metadata.get("shard_sha256"))):
        yield f"metadata shard_sha256: is {metadata.get('shard_sha256')}, expected 64 hex digits"


def _columns_sha256(table: pa.Table) -> str:
    """The checksum, as the head of votes_table.py defines it."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(name.encode() + b"\0")
        for chunk in column.chunks:
            digest.update(chunk.is_valid().to_numpy(zero_copy_only=False).tobytes())
        for chunk in column.chunks:
            digest.update(_canonical(chunk))
    return digest.hexdigest()


def _canonical(values: pa.Array) -> bytes:
    if pa.types.is_fixed_size_list(values.type):
        there = values.flatten().fill_null(0).to_numpy(zero_copy_only=False)
        numbers = np.zeros((len(values), values.type.list_size), there.dtype)
        numbers[values.is_valid().to_numpy(zero_copy_only=False)] = there.reshape(-1, values.type.list_size)
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    else:
        texts = (value.encode() if isinstance(value, str) else value or b"" for value in values.to_pylist())
        return b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()


# A row


def _rows(table: pa.Table) -> Iterator[Row]:
    """The rows as mappings, votes and margins as Arrow arrays."""
    small = [name for name in table.column_names if name not in ("votes", "margins")]
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        votes, margins = batch.column("votes"), batch.column("margins")
        for position, row in enumerate(batch.select(small).to_pylist()):
            yield row | {"votes": votes[position].values, "margins": margins[position].values}


def _row_findings(run: Run, shard: Mapping[str, Any], row: Row, position: int, place: _Place) -> Findings:
    if missing := [name for name in _REQUIRED if row[name] is None]:
        yield from ((name, "is null") for name in missing)
        return
    yield from _place_findings(shard, row, position, place)
    if row["status"] in _STATUSES:
        yield from _status_findings(run, row)
        yield from _size_findings(run, row)
    else:
        yield "status", f"is {row['status']}, expected one of {', '.join(_STATUSES)}"
    if row["votes"] is not None:
        yield from _vote_findings(run, row)


def _place_findings(shard: Mapping[str, Any], row: Row, position: int, place: _Place) -> Findings:
    if (first := place.rows.setdefault(row["key"], position)) != position:
        yield "key", f"comes twice, first in row {first}"
    if row["shard"] != place.shard:
        yield "shard", f"is {row['shard']}, expected {shard['name']}"
        place.shard = row["shard"]
    if row["index"] != position + place.shift:
        yield "index", f"is {row['index']}, expected {position + place.shift}: a row is lost, doubled or misplaced"
        place.shift = row["index"] - position
    start, earliest = row["image_offset"], place.end + _BLOCK  # the header of a member comes before its bytes
    if start % _BLOCK or start < earliest:
        yield "image_offset", f"is {start}, expected a multiple of {_BLOCK} from {earliest} on"
    place.end = -(-(start + row["image_bytes"]) // _BLOCK) * _BLOCK
    if row["image_bytes"] < 0 or place.end + 2 * _BLOCK > shard["size"]:  # two zero blocks end a tar
        yield "image_bytes", f"is {row['image_bytes']}, from {start} on in a shard of {shard['size']} bytes"


def _status_findings(run: Run, row: Row) -> Findings:
    """The status says what is null; a label may be missing only with an error or in a job without labels."""
    status, label = row["status"], row["label"]
    voted = status in ("ok", "label_error")
    expected = dict.fromkeys(_OF_VOTES, voted) | dict.fromkeys(_CLEAN, voted and run.job["clean"])
    expected |= {"error": status != "ok"}
    expected |= {"label": status == "ok" and run.labelled} if voted or not run.labelled else {}
    for name, there in expected.items():
        if (row[name] is not None) != there:
            yield name, f"is {'there' if row[name] is not None else 'null'}, which does not go with status {status}"
    for name, number in (("label", label), ("clean_prediction", row["clean_prediction"])):
        if number is not None and not 0 <= number < run.classes:
            yield name, f"is {number}, expected 0 to {run.classes - 1}"
    if status == "label_error" and not run.labelled:
        yield "status", "is label_error, but the job has no labels"
    if row["clean_margin"] is not None and not 0 <= row["clean_margin"] < np.inf:
        yield "clean_margin", f"is {row['clean_margin']}, expected a finite number from 0 on"


def _size_findings(run: Run, row: Row) -> Findings:
    """A status about the size goes with the width and height."""
    status, size, resize = row["status"], (row["width"], row["height"]), run.job["preprocess"]["resize"]
    if None in size:
        if status != "decode_error" or size != (None, None):
            yield "width", f"and height are {size}, which does not go with status {status}"
        return
    short, long = sorted(size)
    resized = 0 if resize is None or short < 1 else resize * int(resize * long / short)
    large = max(short * long, resized) > _MAX_PIXELS
    fits = short >= 1 and (resize is not None or size == (run.frame.side, run.frame.side))
    expected = {"too_large": large, "size_error": not large and not fits}
    if not expected.get(status, not large and fits):
        yield "status", f"is {status}, which does not go with an image of {size[0]} x {size[1]} pixels"


def _vote_findings(run: Run, row: Row) -> Findings:
    """Everything that follows from the votes, counted again."""
    margins = np.array([] if row["margins"] is None else row["margins"].to_numpy(zero_copy_only=False))
    if wrong := np.flatnonzero(~((margins >= 0) & (margins < np.inf))).tolist():
        yield "margins", f"of the ablations {wrong} are {margins[wrong].tolist()}, expected finite numbers from 0 on"
    votes = row["votes"].to_numpy(zero_copy_only=False)
    if wrong := np.flatnonzero(~(votes < run.classes)).tolist():
        yield "votes", f"of the ablations {wrong} are {votes[wrong].tolist()}, expected 0 to {run.classes - 1}"
        return
    ranked = _ranked(votes, run.classes)
    (prediction, count), (runner_up, runner_up_count) = ranked[:2]
    expected = {"prediction": prediction, "count": count, "runner_up": runner_up, "runner_up_count": runner_up_count}
    rules = (partial(_exactly_certified, run.frame, votes, ranked), partial(_margin_certified, run.frame, ranked))
    expected |= {name: _largest(row[name], run.frame.side, rule) for name, rule in zip(_MAX, rules, strict=True)}
    for name, value in expected.items():
        if row[name] not in (None, value):  # a null is for _status_findings
            yield name, f"is {row[name]}, the votes give {value}"


# Certificates


def _ranked(votes: NDArray[np.uint16], classes: int) -> Ranked:
    """Classes with their votes, most first, the lower class first among equals; of those without, the lowest alone.

    It is the strongest rival of them: all have the same 0 votes, and a tie goes to the lower class.
    """
    counts = Counter(votes.tolist())
    without = next(([(c, 0)] for c in range(classes) if c not in counts), [])
    return sorted(counts.items(), key=lambda item: (-item[1], item[0])) + without


def _largest(stored: int | None, side: int, certified: Callable[[int], bool]) -> int:
    """The side of the largest certified square, 0 if none.

    A certificate implies those of all smaller squares, so a stored value is right if it holds and the next one not.
    """
    if stored is not None and stored in range(side + 1):
        holds, next_fails = stored == 0 or certified(stored), stored == side or not certified(stored + 1)
        if holds and next_fails:
            return stored
    return bisect_left(range(1, side + 1), True, key=lambda patch_px: not certified(patch_px))


def _exactly_certified(frame: Frame, votes: NDArray[np.uint16], ranked: Ranked, patch_px: int) -> bool:
    """At every location, for every rival r: u_p > u_r + |T|, or u_p = u_r + |T| and p < r."""
    down, across = _touched(frame, patch_px)
    touched = np.outer(down.sum(1), across.sum(1))

    def outside(c: int, count: int) -> Numbers:
        """[locations down, locations across]: u_c, the votes for c that the patch does not touch."""
        return count - down @ (votes.reshape(frame.grid) == c).astype(np.float32) @ across.T

    (p, n_p), *rivals = ranked
    kept = outside(p, n_p)
    return all((kept >= outside(r, n_r) + touched + (p > r)).all() for r, n_r in rivals)


def _margin_certified(frame: Frame, ranked: Ranked, patch_px: int) -> bool:
    """For every rival r: n_p > n_r + 2D, or n_p = n_r + 2D and p < r, with D the largest |T|."""
    down, across = _touched(frame, patch_px)
    D = down.sum(1).max() * across.sum(1).max()
    (p, n_p), *rivals = ranked
    return all(n_p >= n_r + 2 * D + (p > r) for r, n_r in rivals)


@lru_cache(maxsize=512)
def _touched(frame: Frame, patch_px: int) -> tuple[Numbers, Numbers]:
    """Down and across, [locations, offsets]: 1 where the patch meets what the offset shows.

    Locations that meet the same offsets are one.
    """
    shown_by: list[set[int]] = [set() for _ in range(frame.side)]
    for number, offset in enumerate(frame.offsets):
        for pixel in range(offset, offset + frame.size):
            shown_by[pixel % frame.side].add(number)
    places = range(frame.side - patch_px + 1)
    met = {frozenset[int]().union(*shown_by[place : place + patch_px]) for place in places}
    table = np.array([[number in numbers for number in range(len(frame.offsets))] for numbers in met], np.float32)
    whole = np.ones((1, 1), np.float32)  # a column shows all rows, so every place down touches it
    return (whole if frame.kind == "column" else table), (whole if frame.kind == "row" else table)
