"""One shard in, one published Parquet file out.

    tar -> samples -> pixels -> votes -> certificates -> rows -> Parquet -> published once

Needs no ray: a machine without it runs all of this. Not covered: which shards, and who does them (pipeline/).
"""

import hashlib
import io
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
import torchvision

from manifests.errors import RequestError, ShardError
from manifests.identity import VOTES_VERSION
from manifests.job import Job
from workers import votes_table
from workers.certificates import certify
from workers.classifiers import load_classifier
from workers.geometry import Geometry
from workers.images import DecodedImage, decode, decoder_version
from workers.shard_reader import Sample, read_samples
from workers.shard_task import Introduction, ShardReport, ShardTask
from workers.smoothed_vit import SmoothedViT
from workers.storage import AnyStore, sha256_of

Row = dict[str, Any]
_CPU_IMAGES_PER_BATCH = 16
_CUDA_IMAGES_PER_GIB = 2


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
        torch.set_num_threads(threads)
        self._threads = threads
        self._job, self._run_id, self._run_url = job, run_id, run_url
        self._store = AnyStore(job.storage)
        if self._store.find(f"{run_url}/run.json") is None:
            raise RequestError(
                f"output: {run_url}/run.json is not seen by {platform.node()}; use a folder that all machines share"
            )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        crop = job.preprocess.crop
        self._geometry = Geometry.of(job.ablation, crop, crop)
        with self._store.local(job.model.checkpoint) as checkpoint:
            if sha256_of(checkpoint) != checkpoint_sha256:
                raise RequestError(f"{job.model.checkpoint} changed since the run was planned; start again")
            network = load_classifier(job.model, crop, checkpoint, checkpoint_key)
        self._model = SmoothedViT(network, self._geometry, preprocess=job.preprocess, model=job.model, device=device)
        self._images_per_batch = job.execution.images_per_batch or _auto_images_per_batch(device)
        self._environment = _environment(device)
        self._decode_s = 0.0  # of the present shard

    def try_out(self, task: ShardTask, images: int) -> Counter[str]:
        """Vote on the first images of a shard, publish nothing; the number of rows of each status."""
        with self._tar(task) as tar:
            return Counter(row["status"] for row in islice(self._rows(task, tar), images))

    def introduce(self) -> Introduction:
        """Classify an image that is the same on every machine."""
        crop = self._job.preprocess.crop
        pixels = torch.arange(crop * crop * 3).mul(37).remainder(251).to(torch.uint8).reshape(1, crop, crop, 3)
        logits = self._model.clean_logits(pixels)[0, 0].cpu().numpy()
        return Introduction(platform.node(), self._environment, VOTES_VERSION, logits)

    def certify(self, task: ShardTask) -> Iterator[int | ShardReport]:
        """Certify a shard and publish its file: the number of rows done after every batch, then the report.

        Raises:
            ShardError: the tar cannot be certified whole.
        """
        with _naming(task):
            yield from self._certify(task)

    def _certify(self, task: ShardTask) -> Iterator[int | ShardReport]:
        start, self._decode_s = time.monotonic(), 0.0
        rows: list[Row] = []
        with self._tar(task) as tar:
            for row in self._rows(task, tar):
                rows.append(row)
                if len(rows) % self._images_per_batch == 0:
                    yield len(rows)
            shard_sha256 = sha256_of(tar)
        metadata = {
            "run_id": self._run_id,
            "shard": {"name": task.shard.name, "size": task.shard.size, "fingerprint": task.shard.fingerprint},
            "shard_sha256": shard_sha256,
            "votes_version": VOTES_VERSION,
            "geometry": {**self._job.ablation.model_dump(), "crop": self._job.preprocess.crop},
            "images_per_batch": self._images_per_batch,
            "seconds": round(time.monotonic() - start, 3),
            **self._environment,
        }
        data = votes_table.encode(rows, self._geometry.num_ablations, metadata)
        published = self._store.publish(self._run_url, task.file_name, data)
        if not published:
            self._accept_the_first(task, rows)
        statuses = Counter(row["status"] for row in rows)
        seconds = time.monotonic() - start
        yield ShardReport(task, dict(statuses), seconds, self._decode_s, published, platform.node())

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
                "start again"
            )

    def _rows(self, task: ShardTask, tar: Path) -> Iterator[Row]:
        """The rows of a shard in tar order; batches depend only on positions in the shard."""
        samples = read_samples(tar, self._job.images, classes=self._job.model.classes, limit=task.limit)
        with ThreadPoolExecutor(self._threads) as decoders:
            for batch in _batches(samples, self._images_per_batch):
                start = time.monotonic()
                decoded = list(decoders.map(lambda sample: decode(sample.image, self._job.preprocess), batch))
                self._decode_s += time.monotonic() - start
                rows = [_row(task, sample, image) for sample, image in zip(batch, decoded, strict=True)]
                self._vote(rows, decoded)
                yield from rows

    def _vote(self, rows: list[Row], decoded: Sequence[DecodedImage]) -> None:
        """Add votes, margins and certificates to the rows whose images have pixels."""
        readable = [position for position, image in enumerate(decoded) if image.pixels is not None]
        if not readable:
            return
        pixels = torch.from_numpy(np.stack([image.pixels for image in decoded if image.pixels is not None]))
        answers = [self._model.votes(pixels), *([self._model.clean_votes(pixels)] if self._job.clean else [])]
        finite = torch.cat([answer.margins for answer in answers], dim=1).isfinite().all(dim=1).cpu().numpy()
        votes = answers[0].classes.cpu().numpy()[finite]
        margins = answers[0].margins.cpu().numpy()[finite]
        certificates = certify(votes, self._geometry, classes=self._job.model.classes)
        for position in np.array(readable)[~finite]:
            rows[position] |= {"status": "model_error", "error": "a logit is not finite"}
        for place, position in enumerate(np.array(readable)[finite]):
            rows[position] |= {"votes": votes[place], "margins": margins[place]}
            rows[position] |= {name: int(values[place]) for name, values in vars(certificates).items()}
        if self._job.clean:
            classes, margins = (part[:, 0].cpu().numpy()[finite] for part in answers[1])
            for place, position in enumerate(np.array(readable)[finite]):
                rows[position] |= {"clean_prediction": int(classes[place]), "clean_margin": float(margins[place])}

    def _accept_the_first(self, task: ShardTask, rows: Sequence[Row]) -> None:
        """Another writer published this shard before: its rows must be about the same images."""
        there = io.BytesIO(self._store.read(f"{self._run_url}/{task.file_name}"))
        run_id = votes_table.read_metadata(there)["run_id"]
        table = pq.read_table(there, columns=["key", "sha256"]).to_pylist()
        if run_id != self._run_id or table != [{"key": row["key"], "sha256": row["sha256"]} for row in rows]:
            raise ShardError(f"{self._run_url}/{task.file_name} is there already, with other images; move it away")


@contextmanager
def _naming(task: ShardTask) -> Iterator[None]:
    try:
        yield
    except ShardError as error:
        raise ShardError(f"shard {task.shard.name}: {error}") from None


def _row(task: ShardTask, sample: Sample, image: DecodedImage) -> Row:
    """A row without votes."""
    status, error = "ok", None
    if image.error is not None:
        status, error = image.error.status, image.error.message
    elif sample.label_error is not None:
        status, error = "label_error", sample.label_error
    return {
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
    }


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
