"""Some images of one shard in, one published Parquet file out.

    tar -> the chosen images -> pixels, with their stored votes -> Measures -> rows -> file

An image that cannot be read, or lacks the votes that the kind needs, is a row with the reason in `error`.

It runs on a machine without ray. Not covered: which images there are, and which machine measures them (pipeline/).
"""

import hashlib
import io
import json
import platform
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.workers.runs.published import read_published
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.shard_task import ShardReport, Step
from smoothcert.workers.runs.votes_table import METADATA_KEY, column, matrix_of
from smoothcert.workers.storage.store import AnyStore, sha256_of
from smoothcert.workers.studies.measures import Kind, Loader, Measures, Studied, kind_of
from smoothcert.workers.studies.study import PartTask, StoredStudy
from smoothcert.workers.tars.card_decoder import card_for, decoder_of
from smoothcert.workers.tars.fetched import fetched, naming
from smoothcert.workers.tars.pixels import Batch, DecodedSample, PixelReader
from smoothcert.workers.votes.machine import auto_images_per_batch, device_here, environment_here

_LOOK_S = 20.0  # between looks at whether a batch makes progress

COLUMNS = (
    column("key", pa.string(), "The sample's key in the tar. Rows pair with those of the run by shard and key."),
    column("shard", pa.string(), "Name of the tar."),
    column("index", pa.int32(), "Position in the tar, from 0."),
    column("sha256", pa.binary(32), "SHA-256 of the image file."),
    column("label", pa.int32(), "Class of the image; null without one.", nullable=True),
    column("error", pa.string(), "Why the image was not measured; null if it was.", nullable=True),
)
"""The columns that the rows of every study have."""


class StudyWorker:
    """Measures images of one study.

    Args:
        study: the study; its study.json exists.
        threads: CPU threads to use.
        allow_code: whether code that the job names may run.
    """

    def __init__(self, study: StoredStudy, *, threads: int, allow_code: bool = False) -> None:
        self._study, self._run = study, study.run
        self._device = device_here()
        self._allow_code = allow_code
        self._kind: Kind = kind_of(study.settings)
        job = study.run.job
        images_per_batch = job.execution.images_per_batch or auto_images_per_batch(self._device)
        self._reader = PixelReader(job.images, job.preprocess, job.model.classes, images_per_batch, threads)
        self._compute = ThreadPoolExecutor(1, "compute", torch.set_num_threads, (threads,))  # as the Certifier does
        self._turn = threading.Lock()
        self._measures: Measures | None = None

    def work(self, task: PartTask) -> Generator[Step, None, None]:
        """Measure the images of a part and publish its file.

        Args:
            task: the part.
        Yields:
            The number of images that are done, after every batch but the last and while one takes long; then a report.
        Raises:
            RequestError: the checkpoint is not the run's, or does not fit its network.
            ShardError: the tar cannot be read whole, or holds other images than the run.
        """
        rows, store = list[dict[str, Any]](), AnyStore(self._run.job.storage)
        with naming(task.shard), self._turn:
            start, measures = time.monotonic(), self._loaded()
            votes = _votes_of(self._run, task) if self._kind.needs_votes else {}
            with (
                fetched(task.shard, store) as shard,
                closing(self._reader.batches(shard, only=frozenset(task.images))) as batches,
            ):
                batch = next(batches, None)
                while batch is not None:
                    coming = self._compute.submit(self._rows, measures, batch, votes, task)
                    while not coming.done():
                        forwards = measures.forwards
                        try:
                            coming.result(_LOOK_S)
                        except NotYet:
                            if measures.forwards > forwards:
                                yield len(rows)
                    rows += coming.result()
                    batch = next(batches, None)
                    if batch is not None:  # a part whose images are all done is published, whoever wants to stop
                        yield len(rows)
            if len(rows) != len(task.images):
                raise ShardError(f"it lacks {len(task.images) - len(rows)} of the images to measure; restore the tar")
        published = self._run.store.publish(self._run.url, task.file_name, self._encode(rows))
        seconds = time.monotonic() - start
        yield ShardReport(
            self._study.record.study_id,
            task,
            {"ok": sum(row["error"] is None for row in rows), "error": sum(row["error"] is not None for row in rows)},
            seconds=seconds,
            turn_s=seconds,
            waited_s=0.0,
            published=published,
            node=platform.node(),
        )

    def _loaded(self) -> Measures:
        if self._measures is None:
            self._measures = self._compute.submit(self._load).result()
        return self._measures

    def _load(self) -> Measures:
        run, store = self._run, AnyStore(self._run.job.storage)
        card_for(run.job.preprocess)  # a machine that lacks the decoder is refused first
        url = run.record.checkpoint.url or run.job.model.checkpoint
        if store.find(url) is None:
            raise RequestError(f"{url} is gone, so the network of run {run.run_id} cannot be loaded; restore it")
        with store.local(url) as checkpoint:
            if sha256_of(checkpoint) != run.checkpoint_sha256:
                raise RequestError(f"{url} is not the checkpoint of run {run.run_id}; restore it")
            loader = Loader(run.job, checkpoint, run.record.checkpoint.key, self._device, self._allow_code)
            return self._kind.measures(self._study.settings, loader)

    def _rows(
        self, measures: Measures, batch: Batch, votes: Mapping[int, "_Voted"], task: PartTask
    ) -> list[dict[str, Any]]:
        """The rows of a batch."""
        rows = [_row_of(sample, task) for sample in batch.samples]
        chosen = [place for place, position in enumerate(batch.readable) if self._is_measured(rows[position], votes)]
        if batch.pixels is None or not chosen:
            return rows
        measured = [rows[batch.readable[place]] for place in chosen]
        stored = np.stack([votes[row["index"]].votes for row in measured]) if self._kind.needs_votes else None
        seed = self._study.record.choice["seed"]
        studied = Studied(
            batch.pixels[torch.tensor(chosen)],
            [row["label"] for row in measured],
            [_seed_of(seed, row["sha256"]) for row in measured],
            stored,
        )
        for row, values in zip(measured, measures.measure(studied), strict=True):
            row.update(values)
        return rows

    def _is_measured(self, row: dict[str, Any], votes: Mapping[int, "_Voted"]) -> bool:
        if not self._kind.needs_votes:
            return True
        stored = votes.get(row["index"])
        if stored is None:
            row["error"] = "the run has no votes of it"
        elif stored.sha256 != row["sha256"]:
            raise ShardError(f"image {row['key']} is not the one that voted in run {self._run.run_id}; restore the tar")
        return stored is not None

    def _encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        schema = pa.schema([*COLUMNS, *self._kind.columns])
        environment = environment_here(self._device) | {"decoder": decoder_of(self._run.job.preprocess)}
        described = {"study_id": self._study.record.study_id, **environment}
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(described, sort_keys=True).encode()})
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
        return file.getvalue()


class _Voted:
    """The stored votes of an image, and the hash of the image that voted."""

    def __init__(self, sha256: bytes, votes: NDArray[np.int64]) -> None:
        self.sha256, self.votes = sha256, votes


def _votes_of(run: Run, task: PartTask) -> dict[int, _Voted]:
    """The images of a shard that have votes, by their index."""
    (file,) = read_published(run, ["index", "sha256", "votes"], [task.votes_file])
    there = file.rows.filter(file.rows["votes"].is_valid())
    if not len(there):
        return {}
    matrix = matrix_of(there["votes"]).astype(np.int64)
    return {
        index: _Voted(sha256, votes)
        for index, sha256, votes in zip(there["index"].to_pylist(), there["sha256"].to_pylist(), matrix, strict=True)
    }


def _row_of(sample: DecodedSample, task: PartTask) -> dict[str, Any]:
    return {
        "key": sample.key,
        "shard": task.shard.name,
        "index": sample.index,
        "sha256": sample.sha256,
        "label": sample.label,
        "error": None if sample.status in ("ok", "label_error") else f"{sample.status}: {sample.error}",
    }


def _seed_of(seed: int, image_sha256: bytes) -> int:
    """A seed for torch, below 2^63."""
    digest = hashlib.sha256(seed.to_bytes(8, "little") + image_sha256).digest()
    return int.from_bytes(digest[:7], "little")
