"""The tables that SQL sees.

    images      a row per image, with `run_id` and the columns of the files (runs/votes_table.py)
    certified   a row per image, square patch and rule: whether the prediction is certified, and is the label; of masks
                only for the square that they were made for
    classes     a row per run and class: images, clean, smoothed, and the class that it is mistaken for most often
    ablations   a row per image and ablation: its place (of the first rectangle that a mask hides), vote and margin
    runs        a row per run: its job, where it lies, model, ablation and size of the images

Files are read in place, and only the columns that a question needs. DuckDB reads them through Arrow: its own reader of
S3 is an extension that must be downloaded. Hashes of files are not compared; `smoothcert verify` does that.

Not covered: certificates of other patches (query/).
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import boto3
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from botocore import UNSIGNED
from botocore.config import Config
from pyarrow import fs

from smoothcert.manifests.ablation import Area, MaskAblation
from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.job import Storage
from smoothcert.manifests.names import one_line
from smoothcert.manifests.rules import Certificate
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.runs.run import Run
from smoothcert.workers.storage.s3_errors import explained

TABLES = ("images", "certified", "classes", "ablations", "runs")
FILES_OF_A_RUN = "_run_"
"""How the names of the tables behind `images` begin."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # else the names of our variables would be tables
}
_NAMES = pa.schema([("run_id", pa.string()), ("class", pa.int32()), ("class_name", pa.string())])
_RUNS = pa.schema(
    [
        *((name, pa.string()) for name in ("run_id", "job", "path", "checkpoint_sha256", "architecture")),
        *(("masked_tokens", pa.string()), ("kind", pa.string())),
        *(("size", pa.int32()), ("stride", pa.int32()), ("edges", pa.string())),
        *(("threat", pa.string()), ("per_axis", pa.int32()), ("fill", pa.string()), ("threat_patches", pa.int32())),
        *(("early_exit", pa.bool_()), ("crop", pa.int32())),
        *((name, pa.bool_()) for name in ("labelled", "classified_whole", "partial", "complete")),
    ]
)
_SIDES = pa.schema([("run_id", pa.string()), ("side", pa.int32()), ("rule", pa.string())])
_WINDOWS = "CASE rule WHEN 'exact' THEN max_certified_patch ELSE max_margin_certified_patch END >= side"
_MASKS = "CASE rule WHEN 'exact' THEN recovery_certified ELSE recovery_published END"
_CERTIFIED = """
CREATE VIEW certified AS
SELECT run_id, shard, key, label, prediction, side, rule, coalesce({certified}, false) AS certified,
       CASE WHEN labelled THEN coalesce(prediction = label, false) END AS correct
FROM images JOIN _sides USING (run_id) JOIN runs USING (run_id)
"""
_CLASSES = """
CREATE VIEW classes AS
SELECT run_id, class, class_name, images, clean, smoothed, mistaken_for
FROM (SELECT run_id, CASE WHEN labelled THEN label ELSE prediction END AS class, count(*) AS images,
             CASE WHEN any_value(labelled AND classified_whole) THEN count(*) FILTER (clean_prediction = label) END
                 AS clean,
             CASE WHEN any_value(labelled) THEN count(*) FILTER (prediction = label) END AS smoothed,
             mode(prediction) FILTER (prediction <> label) AS mistaken_for
      FROM images JOIN runs USING (run_id)
      GROUP BY run_id, class)
LEFT JOIN _class_names USING (run_id, class)
"""
_ABLATIONS = """
CREATE VIEW ablations AS
SELECT run_id, shard, key, label, prediction, ablation, top, "left", vote, margin
FROM (SELECT run_id, shard, key, label, prediction, generate_subscripts(votes, 1) - 1 AS ablation,
             unnest(votes) AS vote, unnest(margins) AS margin
      FROM images WHERE votes IS NOT NULL)
JOIN _offsets USING (run_id, ablation)
"""


def connect(runs: Sequence[Run], storage: Storage) -> duckdb.DuckDBPyConnection:
    """A database in memory that sees the runs.

    Args:
        runs: finished or not; each once.
        storage: how to reach them.
    Raises:
        RequestError: a run has no files, or comes twice, or its storage cannot be reached so.
        RunError: a file is damaged.
    """
    twice = {run.run_id for run in runs if [one.run_id for one in runs].count(run.run_id) > 1}
    if twice:
        raise RequestError(f"run {sorted(twice)[0]} is named twice; name each run once")
    database = duckdb.connect(config=_CONFIG)
    # DuckDB takes a file of Arrow for one row. It would keep all ablations in memory to join them with their offsets,
    # instead of the offsets. As written, the smaller table is on the right, which is kept.
    database.execute("SET disabled_optimizers = 'build_side_probe_side'")
    parts = []
    for number, run in enumerate(runs):
        name, files = f"{FILES_OF_A_RUN}{number}", _dataset_of(run, storage)
        database.register(name, files)
        parts.append(f"SELECT {_text(run.run_id)} AS run_id, {_columns(files.schema)} FROM {name}")  # noqa: S608
    database.register("runs", pa.Table.from_pylist([_described(run) for run in runs], _RUNS))
    database.register("_sides", pa.Table.from_pylist([row for run in runs for row in _sides(run)], _SIDES))
    database.register("_class_names", pa.Table.from_pylist([row for run in runs for row in _names(run)], _NAMES))
    database.register("_offsets", pa.concat_tables([_offsets(run) for run in runs]))
    database.execute(f"CREATE VIEW images AS {' UNION ALL BY NAME '.join(parts)}")
    have_masks = any(isinstance(run.job.ablation, MaskAblation) for run in runs)  # else there are no such columns
    certified = f"CASE kind WHEN 'mask' THEN {_MASKS} ELSE {_WINDOWS} END" if have_masks else _WINDOWS
    for view in (_CERTIFIED.format(certified=certified), _CLASSES, _ABLATIONS):
        database.execute(view)
    return database


def unreadable(error: Exception) -> RunError:
    """The error about a file of a run that Arrow cannot read."""
    return RunError(f"sql: a file cannot be read ({one_line(error)}); `smoothcert verify` says which is damaged")


def _columns(schema: pa.Schema) -> str:
    """The columns of a run's files, in types that are the same in all runs."""
    return ", ".join(f"{_cast(field)} AS {_quoted(field.name)}" for field in schema)


def _cast(field: pa.Field) -> str:
    if pa.types.is_dictionary(field.type):
        return f"CAST({_quoted(field.name)} AS VARCHAR)"
    if pa.types.is_fixed_size_list(field.type):  # as long as the run has ablations
        kind = "USMALLINT" if pa.types.is_integer(field.type.value_type) else "FLOAT"
        return f"CAST({_quoted(field.name)} AS {kind}[])"
    return _quoted(field.name)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _described(run: Run) -> dict[str, Any]:
    job = run.job
    keys = job.ablation.model_dump(mode="json")
    names = ("kind", "size", "stride", "edges", "per_axis", "threat_patches", "early_exit")
    return {name: keys.get(name) for name in names} | {
        "run_id": run.run_id,
        "job": run.name,
        "path": run.url,
        "checkpoint_sha256": run.checkpoint_sha256,
        "architecture": job.model.architecture,
        "masked_tokens": job.model.masked_tokens,
        "threat": job.ablation.threat_text if isinstance(job.ablation, MaskAblation) else None,
        "fill": job.ablation.fill,
        "crop": job.preprocess.crop,
        "labelled": job.images.label is not None,
        "classified_whole": job.clean,
        "partial": run.partial,
        "complete": run.complete(),
    }


def _sides(run: Run) -> list[dict[str, Any]]:
    """The squares and rules for which the stored columns have an answer."""
    ablation = run.job.ablation
    sides = [*range(1, run.job.preprocess.crop + 1)]
    if isinstance(ablation, MaskAblation):
        threats = [] if isinstance(ablation.threat, Area) else [ablation.threat]
        sides = [side for side in sides if (side, side) in threats and ablation.threat_patches == 1]
    rules = family_of(ablation).rules[Certificate.recovery]
    return [{"run_id": run.run_id, "side": side, "rule": rule.value} for side in sides for rule in rules]


def _names(run: Run) -> list[dict[str, Any]]:
    return [{"run_id": run.run_id, "class": number, "class_name": name} for number, name in enumerate(run.class_names)]


def _offsets(run: Run) -> pa.Table:
    """Top and left pixel of what each ablation shows, or of the first rectangle that it hides."""
    job = run.job
    places = ablations_of(job.ablation, job.preprocess.crop, job.preprocess.crop).first_pixels()
    return pa.table(
        {
            "run_id": pa.repeat(run.run_id, len(places)),
            "ablation": np.arange(len(places)),
            "top": places[:, 0].astype(np.int32),
            "left": places[:, 1].astype(np.int32),
        }
    )


def _dataset_of(run: Run, storage: Storage) -> ds.Dataset:
    names = [task.file_name for task in run.published_tasks()]
    if not names:
        raise run.no_files_yet()
    if "://" in run.url and not run.url.startswith("s3://"):
        raise RequestError(f"{run.url}: sql reads runs from folders and S3; copy the run there")
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    kind = ds.ParquetFileFormat(default_fragment_scan_options=options)
    system = s3_system(storage, urlsplit(run.url).netloc) if "://" in run.url else fs.LocalFileSystem()
    paths = [f"{run.url.removeprefix('s3://')}/{name}" for name in names]
    try:
        return ds.dataset(paths, format=kind, filesystem=system)
    except (pa.ArrowException, OSError) as error:  # the first file gives the columns
        raise unreadable(error) from None


def s3_system(storage: Storage, bucket: str) -> fs.S3FileSystem:
    """Arrow's way to a bucket, with the credentials that the other commands use.

    boto3 follows a bucket to its region, whatever the settings say. Arrow does not, so boto3 asks for the region.

    Raises:
        RequestError: the bucket does not exist, or cannot be reached so.
        RunError: the network or the server failed.
    """
    if storage.requester_pays:
        raise RequestError("--storage requester_pays: sql cannot read requester-pays buckets; copy the run to a folder")
    with explained("storage"):
        session = boto3.Session(profile_name=storage.profile, region_name=storage.region)
        found = None if storage.anonymous else session.get_credentials()
        unsigned = Config(signature_version=UNSIGNED) if found is None else None
        client = session.client("s3", endpoint_url=storage.endpoint_url, config=unsigned)
    with explained(f"s3://{bucket}"):
        region = client.head_bucket(Bucket=bucket).get("BucketRegion") or client.meta.region_name
        client = session.client("s3", endpoint_url=storage.endpoint_url, region_name=region)
    endpoint = urlsplit(client.meta.endpoint_url)
    keys = None if found is None else found.get_frozen_credentials()
    return fs.S3FileSystem(
        anonymous=keys is None,
        access_key=keys and keys.access_key,
        secret_key=keys and keys.secret_key,
        session_token=keys and keys.token,
        region=region,
        scheme=endpoint.scheme,
        endpoint_override=endpoint.netloc,
    )
