"""One shard in, one published Parquet file out.

    tar -> samples -> pixels                         ahead, while another shard has its turn
        -> votes                                     in its turn: the model is one shard's at a time
        -> certificates -> Parquet, published once   after it

Needs no ray: a machine without it runs all of this. Not covered: which shards, and who does them (pipeline/).
"""

import hashlib
import io
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from smoothcert.manifests.errors import RequestError, ShardError
from smoothcert.manifests.identity import VOTES_VERSION
from smoothcert.manifests.job import Job, Preprocess
from smoothcert.workers.ablations.geometry import Geometry
from smoothcert.workers.certificates.rules import certify
from smoothcert.workers.certificates.tally import count_votes
from smoothcert.workers.networks.classifiers import load_classifier, preprocess_notice
from smoothcert.workers.runs import votes_table
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.shard_task import Introduction, ShardReport, ShardTask, TriedOut
from smoothcert.workers.storage.store import AnyStore, sha256_of
from smoothcert.workers.tars.images import decode, decoder_version
from smoothcert.workers.tars.labels import LabelCounts
from smoothcert.workers.tars.shard_reader import Sample, naming, read_samples
from smoothcert.workers.tars.tar_headers import TarContents, read_tar
from smoothcert.workers.votes.self_check import made_up_image
from smoothcert.workers.votes.smoothed import Smoothed
from smoothcert.workers.votes.voters import smooth

_T = TypeVar("_T")
Row = dict[str, Any]
_CPU_IMAGES_PER_BATCH = 16
_CUDA_IMAGES_PER_GIB = 2
_BATCHES_AHEAD = 2


class _Batch(NamedTuple):
    """Rows of a shard; positions of those whose images can be read; pixels of these, [readable, crop, crop, channels]
    uint8.
    """

    rows: list[Row]
    readable: list[int]
    pixels: Tensor | None


class Certifier:
    """A loaded model, ready for shards.

    Args:
        job: the job.
        run_id, run_url: of the run, whose run.json exists.
        checkpoint_sha256, checkpoint_key: as the run's identity has them.
        threads: CPU threads to use.
    Raises:
        RequestError: the checkpoint is not the run's, or does not fit the model.
    """

    def __init__(
        self, job: Job, *, run_id: str, run_url: str, checkpoint_sha256: str, checkpoint_key: str | None, threads: int
    ) -> None:
        self._threads = threads
        # All of torch's work is done by one thread: OpenMP makes a team for each thread that asks for one, and where
        # teams have more threads than there are cores, theirs sleep between steps (a quarter of the speed).
        self._compute = ThreadPoolExecutor(1, "compute", torch.set_num_threads, (threads,))
        self._job, self._run_id, self._run_url = job, run_id, run_url
        self._store = AnyStore(job.storage)
        if self._store.find(f"{run_url}/{RUN_JSON}") is None:
            raise RequestError(
                f"output: {run_url}/{RUN_JSON} is not seen by {platform.node()}; use a folder that all machines share"
            )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        crop = job.preprocess.crop
        self._geometry = Geometry.of(job.ablation, crop, crop)
        with self._store.local(job.model.checkpoint) as checkpoint:
            if sha256_of(checkpoint) != checkpoint_sha256:
                raise RequestError(f"{job.model.checkpoint} changed since the run was planned; start again")
            self._model = self._compute.submit(self._load, checkpoint, checkpoint_key, device).result()
        self._images_per_batch = job.execution.images_per_batch or _auto_images_per_batch(device)
        self._environment = _environment(device)
        self._turn = threading.Lock()  # of the model

    def try_out(self, task: ShardTask, images: int) -> TriedOut:
        """Vote on the first images of a shard, and publish nothing."""
        job = self._job
        with naming(task.shard), self._tar(task) as tar:
            contents = read_tar(tar, job.images)
            with closing(self._decoded(task, tar, contents)) as batches:
                rows = list(islice(chain.from_iterable(self._voted(batch) for batch in batches), images))
        _add_predictions(rows, job.model.classes)
        labels = LabelCounts() if job.images.label is None else _count_labels(rows, job)
        notice = preprocess_notice(job)
        return TriedOut(
            Counter(row["status"] for row in rows),
            next((f"{row['key']}: {row['error']}" for row in rows if "votes" not in row), None),
            labels,
            () if notice is None else (notice,),
        )

    def introduce(self) -> Introduction:
        """Classify an image that is the same on every machine."""
        pixels = made_up_image(self._job.preprocess)[None]
        logits = self._compute.submit(self._model.clean_logits, pixels).result()[0, 0].cpu().numpy()
        return Introduction(platform.node(), self._environment, VOTES_VERSION, logits)

    def certify(self, task: ShardTask) -> Generator[int | ShardReport, None, None]:
        """Certify a shard and publish its file: the number of rows done after every batch, then the report.

        Two threads may each certify a shard: the votes of one are computed while the other fetches and decodes, or
        publishes.

        Raises:
            ShardError: the tar cannot be certified whole.
        """
        with naming(task.shard):
            yield from self._certify(task)

    def _certify(self, task: ShardTask) -> Generator[int | ShardReport, None, None]:
        start, waited_s = time.monotonic(), 0.0
        rows: list[Row] = []
        with ExitStack() as opened:
            tar = opened.enter_context(self._tar(task))
            contents = read_tar(tar, self._job.images)
            batches = opened.enter_context(closing(_ahead(self._decoded(task, tar, contents), _BATCHES_AHEAD)))
            batch = next(batches, None)
            with self._turn:
                began = time.monotonic()
                while batch is not None:
                    rows += self._voted(batch)
                    yield len(rows)
                    asked = time.monotonic()
                    batch = next(batches, None)
                    waited_s += time.monotonic() - asked
                turn_s = time.monotonic() - began
            shard_sha256 = sha256_of(tar)
        if task.limit is None and task.shard.images not in (None, len(rows)):
            raise ShardError(
                f"it holds {len(rows)} images but its index file lists {task.shard.images}; fix the index, or list the "
                "tars in images.shards"
            )
        self._add_certificates(rows)
        metadata = {
            "run_id": self._run_id,
            "shard": {"name": task.shard.name, "size": task.shard.size, "fingerprint": task.shard.fingerprint},
            "shard_sha256": shard_sha256,
            "votes_version": VOTES_VERSION,
            "geometry": {**self._job.ablation.model_dump(), "crop": self._job.preprocess.crop},
            "images_per_batch": self._images_per_batch,
            **contents.left_out.as_json(),
            "rotated_images": sum(row["rotated"] for row in rows),
            "seconds": round(time.monotonic() - start, 3),
            **self._environment,
        }
        data = votes_table.encode(rows, self._geometry.num_ablations, metadata)
        published = self._store.publish(self._run_url, task.file_name, data)
        if not published:
            self._accept_the_first(task, rows)
        statuses = Counter(row["status"] for row in rows)
        yield ShardReport(
            task,
            dict(statuses),
            seconds=time.monotonic() - start,
            turn_s=turn_s,
            waited_s=waited_s,
            published=published,
            node=platform.node(),
        )

    @contextmanager
    def _tar(self, task: ShardTask) -> Iterator[Path]:
        """A local copy of the shard, the same before and after."""
        self._refuse_changed(task)
        with self._store.local(task.shard.url) as tar:
            yield tar
            self._refuse_changed(task)

    def _refuse_changed(self, task: ShardTask) -> None:
        entry = self._store.find(task.shard.url)
        if entry is None:
            raise ShardError(f"{task.shard.url} is gone, or not on {platform.node()}; restore it")
        if (entry.size, entry.fingerprint) != (task.shard.size, task.shard.fingerprint):
            raise ShardError(
                f"{task.shard.url} changed since the run was planned ({task.shard.size} bytes then, {entry.size} now); "
                "run the command again (another size makes another run)"
            )

    def _decoded(self, task: ShardTask, tar: Path, contents: TarContents) -> Generator[_Batch, None, None]:
        """The shard's images in tar order; batches depend only on positions in the shard."""
        images, classes = self._job.images, self._job.model.classes
        samples = read_samples(tar, images, classes=classes, limit=task.limit, contents=contents)
        decode_row = partial(_decode_row, task, self._job.preprocess)
        with ThreadPoolExecutor(self._threads) as decoders:
            for batch in _batches(samples, self._images_per_batch):
                rows, pixels = zip(*decoders.map(decode_row, batch), strict=True)
                readable = [position for position, image in enumerate(pixels) if image is not None]
                stack = torch.from_numpy(np.stack([pixels[position] for position in readable])) if readable else None
                yield _Batch(list(rows), readable, stack)

    def _voted(self, batch: _Batch) -> list[Row]:
        """The rows of a batch, with votes and margins where their images have pixels."""
        if batch.pixels is None:
            return batch.rows
        classes, margins = self._compute.submit(self._answers, batch.pixels).result()
        A = self._geometry.num_ablations
        for place, position in enumerate(batch.readable):
            row = batch.rows[position]
            if not np.isfinite(margins[place]).all():
                row |= {"status": "model_error", "error": "a logit is not finite"}
                continue
            row |= {"votes": classes[place, :A].astype(np.uint16), "margins": margins[place, :A].copy()}
            if self._job.clean:
                row |= {"clean_prediction": int(classes[place, A]), "clean_margin": float(margins[place, A])}
        return batch.rows

    def _load(self, checkpoint: Path, checkpoint_key: str | None, device: torch.device) -> Smoothed:
        job = self._job
        network = load_classifier(job.model, job.preprocess, checkpoint, checkpoint_key)
        return smooth(network, self._geometry, preprocess=job.preprocess, model=job.model, device=device)

    def _answers(self, pixels: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Classes and margins of the ablations, and where it is asked for of the whole image, in a last column."""
        answers = [self._model.votes(pixels)]
        if self._job.clean:
            answers.append(self._model.clean_votes(pixels))
        classes, margins = (torch.cat(parts, dim=1).cpu().numpy() for parts in zip(*answers, strict=True))
        return classes, margins

    def _add_certificates(self, rows: Sequence[Row]) -> None:
        voted = [row for row in rows if "votes" in row]
        if not voted:
            return
        votes = np.stack([row["votes"] for row in voted])
        certificates = certify(votes, self._geometry, classes=self._job.model.classes)
        for place, row in enumerate(voted):
            row |= {name: int(values[place]) for name, values in vars(certificates).items()}

    def _accept_the_first(self, task: ShardTask, rows: Sequence[Row]) -> None:
        """Another writer published this shard before: its rows must be about the same images."""
        there = io.BytesIO(self._store.read(f"{self._run_url}/{task.file_name}"))
        run_id = votes_table.read_metadata(there)["run_id"]
        table = pq.read_table(there, columns=["key", "sha256"]).to_pylist()
        if run_id != self._run_id or table != [{"key": row["key"], "sha256": row["sha256"]} for row in rows]:
            raise ShardError(f"{self._run_url}/{task.file_name} is there already, with other images; move it away")


def _decode_row(task: ShardTask, preprocess: Preprocess, sample: Sample) -> tuple[Row, NDArray[np.uint8] | None]:
    """A row without votes, and the pixels to vote on."""
    image = decode(sample.image, preprocess)
    status, error = "ok", None
    if image.error is not None:
        status, error = image.error.status, image.error.message
    elif sample.label_error is not None:
        status, error = "label_error", sample.label_error
    row = {
        "key": sample.key,
        "shard": task.shard.name,
        "index": sample.index,
        "image_offset": sample.image_offset,
        "image_bytes": len(sample.image),
        "sha256": hashlib.sha256(sample.image).digest(),
        "status": status,
        "error": error,
        "label": sample.label,
        "width": image.width,
        "height": image.height,
        "rotated": image.rotated,  # no column: counted in the file's metadata
    }
    return row, image.pixels


def _add_predictions(rows: Sequence[Row], classes: int) -> None:
    """What labels are compared with; certificates take far longer."""
    if voted := [row for row in rows if "votes" in row]:
        predictions = count_votes(np.stack([row["votes"] for row in voted]), classes=classes).prediction
        for row, prediction in zip(voted, predictions, strict=True):
            row["prediction"] = int(prediction)


def _count_labels(rows: Sequence[Row], job: Job) -> LabelCounts:
    def numbers(column: str) -> NDArray[np.int64]:
        return np.array([-1 if row.get(column) is None else row[column] for row in rows], np.int64)

    return LabelCounts.of(
        [row["key"] for row in rows],
        [row["error"] if row["status"] == "label_error" else None for row in rows],
        numbers("label"),
        [numbers("prediction"), numbers("clean_prediction")],
        images=job.images,
        classes=job.model.classes,
    )


def _ahead(items: Iterator[_T], count: int) -> Generator[_T, None, None]:
    """The items, of which up to `count` are made by another thread before they are asked for."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(count))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    remaining = iter(samples)
    while batch := list(islice(remaining, size)):
        yield batch


def _auto_images_per_batch(device: torch.device) -> int:
    """Depends on the kind of device and its total memory, never on what happens to be free."""
    if device.type == "cpu":
        return _CPU_IMAGES_PER_BATCH
    gib = torch.cuda.get_device_properties(device).total_memory / 2**30
    return max(1, int(gib * _CUDA_IMAGES_PER_GIB))


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "pyarrow": pa.__version__,
            "pillow": PIL.__version__,
        },
        "decoder": decoder_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
    }
