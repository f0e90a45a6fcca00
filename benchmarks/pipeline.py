"""What the path from tar to Parquet costs: end to end over real tars, against the engine and decoding alone.

    engine      SmoothedViT's votes on ablations and whole images, on pixels that are decoded already
    decoding    the tars' images to pixels, with as many threads as an actor has
    end to end  Certifier.certify as an actor does it, two shards at a time: read, checked, decoded, voted, certified,
                encoded, published. The rate is a slope: the extra seconds of the larger size over its extra images.
                The rest of the smaller size's time is its start and end, where nothing overlaps.

They take turns; medians of the rounds count. Device idle is the share of the end-to-end time in which no votes were
computed. Needs no ray. Not covered: the driver (driver.py), starting Ray.

Run from the repository root: python -m benchmarks.pipeline [--tars FOLDER]
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import ablation_of
from smoothcert.manifests.job import Job, Storage
from smoothcert.manifests.shards import Shard
from smoothcert.pipeline.fleet.attempts import SHARDS_PER_ACTOR
from smoothcert.workers.certifier import Assignment, Certifier
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.shard_task import ShardReport, ShardTask
from smoothcert.workers.storage.store import AnyStore, sha256_of
from smoothcert.workers.tars.images import decode
from smoothcert.workers.tars.shard_reader import read_samples
from tests.helpers.tars import tar_of, write_tar

_JPEG_SIZE = (500, 375)  # pixels, as most of ImageNet's


def main() -> None:
    args = _arguments()
    columns = ("engine", "decoding", "end to end", "of engine", "of the slower", "idle", "start and end, s")
    table = Table(title=f"images/s, {args.threads} threads, medians of {args.rounds} rounds")
    for heading in ("model", "ablation", *columns):
        table.add_column(heading, justify="left" if heading in ("model", "ablation") else "right")
    records = []
    with tempfile.TemporaryDirectory() as folder:
        tars = _tars(args, Path(folder))
        for ablation in args.ablation:
            record = measure(args, ablation, tars, Path(folder) / ablation.replace(":", "-"))
            records.append(record)
            rates = (f"{record[name]:.2f}" for name in ("engine", "decoding", "end_to_end"))
            shares = (f"{record[name]:.1%}" for name in ("of_engine", "of_the_slower", "device_idle"))
            table.add_row(args.model, ablation, *rates, *shares, f"{record['start_and_end_s']:.2f}")
    Console(width=140).print(table)
    print(json.dumps(records))


def measure(args: argparse.Namespace, ablation: str, tars: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Measure all three in turns."""
    job = _job(args, ablation, folder)
    few, many = args.shards
    samples = [list(read_samples(tar, job.images, classes=1000)) for tar in tars[:many]]
    rounds = []
    for number in range(args.rounds):
        decoding_s, pixels = _decode_all(job, samples[0], args.threads)
        certifier = _certifier(job, folder / f"run-{number}", args.threads)
        list(_certified(certifier, _tasks(tars[:1])))  # not measured: the first shard warms up
        engine_s = certifier._compute.submit(_engine_s, certifier, pixels).result()
        few_s, _ = _timed(certifier, _tasks(tars[:few], number=1))
        many_s, reports = _timed(certifier, _tasks(tars[:many], number=2))
        images = [sum(map(len, samples[:count])) for count in (few, many)]
        each_s = (many_s - few_s) / (images[1] - images[0])
        engine, decoding = len(pixels) / engine_s, len(samples[0]) / decoding_s
        computing_s = sum(report.turn_s - report.waited_s for report in reports)
        rounds.append(
            {
                "engine": engine,
                "decoding": decoding,
                "end_to_end": 1 / each_s,
                "of_engine": 1 / each_s / engine,
                "of_the_slower": 1 / each_s / min(engine, decoding),
                "device_idle": 1 - computing_s / many_s,
                "waiting_for_pixels": sum(report.waited_s for report in reports) / many_s,
                "start_and_end_s": few_s - images[0] * each_s,
            }
        )
    figures = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return {"model": args.model, "ablation": ablation, "dtype": args.dtype, "threads": args.threads, **figures}


def _timed(certifier: Certifier, tasks: Sequence[ShardTask]) -> tuple[float, list[ShardReport]]:
    start = time.perf_counter()
    reports = list(_certified(certifier, tasks))
    return time.perf_counter() - start, reports


def _certified(certifier: Certifier, tasks: Iterable[ShardTask]) -> Iterator[ShardReport]:
    """The shards, as many at a time as an actor certifies."""
    with ThreadPoolExecutor(SHARDS_PER_ACTOR) as lanes:
        for report in lanes.map(lambda task: list(certifier.certify(task))[-1], tasks):
            assert isinstance(report, ShardReport)
            assert report.published
            yield report


def _engine_s(certifier: Certifier, pixels: torch.Tensor) -> float:
    model, together = certifier._runs[0].voter.model, certifier._pixels.images_per_batch
    start = time.perf_counter()
    for batch in pixels.split(together):
        model.votes(batch).classes.cpu()
        model.clean_votes(batch).classes.cpu()
    return time.perf_counter() - start


def _decode_all(job: Job, samples: Sequence[Any], threads: int) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as decoders:
        images = list(decoders.map(lambda sample: decode(sample.image, job.preprocess).pixels, samples))
    return time.perf_counter() - start, torch.from_numpy(np.stack([image for image in images if image is not None]))


def _tasks(tars: Sequence[Path], number: int = 0) -> list[ShardTask]:
    """Shards of the tars. Each use of a tar has its own index, so that it is published again."""
    store, tasks = AnyStore(Storage()), []
    for place, tar in enumerate(tars):
        entry = store.find(str(tar))
        assert entry is not None
        tasks.append(ShardTask(1000 * number + place, Shard(tar.name, entry.url, entry.size, entry.fingerprint), None))
    return tasks


def _certifier(job: Job, run: Path, threads: int) -> Certifier:
    run.mkdir(parents=True)
    (run / RUN_JSON).write_text("{}")
    assignment = Assignment(job, "benchmark", str(run), sha256_of(Path(job.model.checkpoint)), None)
    return Certifier([assignment], threads=threads)


def _write_weights(architecture: str, file: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model(architecture).state_dict(), file)


def _job(args: argparse.Namespace, ablation: str, folder: Path) -> Job:
    folder.mkdir()
    with ThreadPoolExecutor(1) as passing:  # a thread that ends leaves no team of OpenMP's behind (certifier.py)
        passing.submit(_write_weights, args.model, folder / "weights.pt").result()
    return Job.model_validate(
        {
            "name": "benchmark",
            "images": {"shards": "unused", "label": args.label},
            "model": {
                "architecture": args.model,
                "checkpoint": str(folder / "weights.pt"),
                "classes": 1000,
                "dtype": args.dtype,
            },
            "ablation": ablation_of(ablation),
            "output": "unused",
        }
    )


def _tars(args: argparse.Namespace, folder: Path) -> list[Path]:
    """The tars of --tars, or new tars of made-up photos."""
    return sorted(args.tars.glob("*.tar")) if args.tars else made_up_tars(folder, max(args.shards), args.images)


def made_up_tars(folder: Path, shards: int, images: int) -> list[Path]:
    """Tars of photos that take as long to decode as real ones, in folder/tars."""
    (folder / "tars").mkdir()
    random = np.random.default_rng(0)
    paths = []
    for number in range(shards):
        members = []
        for image in range(images):
            key = f"{number:03d}{image:05d}"
            members += [(f"{key}.jpg", _photo(random)), (f"{key}.cls", b"0")]
        write_tar(folder / "tars", tar_of(members), f"{number:03d}.tar")
        paths.append(folder / "tars" / f"{number:03d}.tar")
    return paths


def _photo(random: np.random.Generator) -> bytes:
    """A JPEG that takes as long to decode as a photo: 100 kB or so of shapes and grain."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(_JPEG_SIZE)
    grain = random.normal(0, 12, (_JPEG_SIZE[1], _JPEG_SIZE[0], 3))
    file = io.BytesIO()
    Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the way from tar to Parquet against the engine alone.")
    parser.add_argument("--tars", type=Path, help="folder of tars; made-up photos by default")
    parser.add_argument("--label", default="cls", help="member that holds the label")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--ablation", nargs="+", default=["column:19:1", "column:19:8"], help="KIND:SIZE:STRIDE")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards", type=int, nargs=2, default=(2, 6), help="two sizes of the end-to-end run")
    parser.add_argument("--images", type=int, default=32, help="of a made-up shard")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
