"""What the path from tar to Parquet costs: end to end over real tars, against the engine and decoding alone.

    engine      SmoothedViT's votes on ablations and whole images, on pixels that are decoded already
    decoding    the tars' images to pixels, with as many threads as an actor has
    end to end  Certifier.certify as an actor does it, two shards at a time: read, checked, decoded, voted, certified,
                encoded, published. With two sizes (--shards 2 6) the rate is a slope: the extra seconds of the larger
                size over its extra images; the rest of the smaller size's time is its start and end, where nothing
                overlaps. With one size (--shards 50) it is all images over all seconds.

They take turns; medians of the rounds count. Device idle is the share of the end-to-end time in which no votes were
computed; waiting are the seconds in which the model waited for pixels. No more images than those of one tar are kept in
memory. Needs no ray. Not covered: the driver (driver.py), starting Ray.

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
from smoothcert.workers.iteration import batched
from smoothcert.workers.runs.layout import RUN_JSON
from smoothcert.workers.runs.shard_task import ShardReport, ShardTask
from smoothcert.workers.storage.store import AnyStore, sha256_of
from smoothcert.workers.tars.card_decoder import card_for, decode_on_card
from smoothcert.workers.tars.images import DecodedImage, decode
from smoothcert.workers.tars.shard_reader import read_samples
from smoothcert.workers.tars.tar_headers import read_tar
from smoothcert.workers.votes.machine import auto_images_per_batch, device_here
from smoothcert.workers.votes.smoothed import Smoothed
from tests.helpers.tars import tar_of, write_tar

_JPEG_SIZE = (500, 375)  # width and height in pixels, as most of ImageNet's
_RUN = "benchmark"


def main() -> None:
    args = _arguments()
    columns = (
        "engine",
        "decoding",
        "end to end",
        "of engine",
        "of the slower",
        "idle",
        "waiting, s",
        "start and end, s",
    )
    table = Table(title=f"images/s, {args.decoder}, {args.threads} threads, medians of {args.rounds} rounds")
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
            rest = "" if record["start_and_end_s"] is None else f"{record['start_and_end_s']:.2f}"
            table.add_row(args.model, ablation, *rates, *shares, f"{record['waiting_s']:.2f}", rest)
    Console(width=140).print(table)
    print(json.dumps(records))


def measure(args: argparse.Namespace, ablation: str, tars: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Measure all three in turns."""
    job = _job(args, ablation, folder)
    sizes = sorted(args.shards)
    images = [sum(len(read_tar(tar, job.images).images) for tar in tars[:size]) for size in sizes]
    samples = list(read_samples(tars[0], job.images, classes=1000))
    together = auto_images_per_batch(device_here())  # as the certifier takes
    rounds = []
    for number in range(args.rounds):
        certifier = _certifier(job, folder / f"run-{number}", args.threads)
        decoding_s, pixels = _decode_all(job, samples, args.threads, together)
        list(_certified(certifier, _tasks(tars[:1])))  # not measured: the first shard warms up
        engine_s = certifier.compute(_engine_s, certifier.voter(_RUN).model, pixels.split(together))
        timed = [_timed(certifier, _tasks(tars[:size], number=place)) for place, size in enumerate(sizes, start=1)]
        seconds, reports = [each[0] for each in timed], timed[-1][1]
        if len(sizes) == 1:
            each_s, rest_s = seconds[0] / images[0], None
        else:
            each_s = (seconds[1] - seconds[0]) / (images[1] - images[0])
            rest_s = seconds[0] - images[0] * each_s
        engine, decoding = len(pixels) / engine_s, len(samples) / decoding_s
        waiting_s = sum(report.waited_s for report in reports)
        computing_s = sum(report.turn_s for report in reports) - waiting_s
        rounds.append(
            {
                "engine": engine,
                "decoding": decoding,
                "end_to_end": 1 / each_s,
                "of_engine": 1 / each_s / engine,
                "of_the_slower": 1 / each_s / min(engine, decoding),
                "device_idle": 1 - computing_s / seconds[-1],
                "waiting_s": waiting_s,
                "waiting_for_pixels": waiting_s / seconds[-1],
                "seconds": seconds[-1],
                "start_and_end_s": rest_s,
            }
        )
    figures = {name: _median([each[name] for each in rounds]) for name in rounds[0]}
    asked = {name: getattr(args, name) for name in ("model", "dtype", "decoder", "threads")}
    return {**asked, "ablation": ablation, "images": images[-1], **figures}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


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


def _engine_s(model: Smoothed, batches: Iterable[torch.Tensor]) -> float:
    start = time.perf_counter()
    for batch in batches:
        model.votes(batch).classes.cpu()
        model.clean_votes(batch).classes.cpu()
    return time.perf_counter() - start


def _decode_all(job: Job, samples: Sequence[Any], threads: int, together: int) -> tuple[float, torch.Tensor]:
    """Seconds, and the pixels of the images that can be decoded; on a GPU `together` images at a time, as an actor."""
    card, files = card_for(job.preprocess), [sample.image for sample in samples]
    images: list[DecodedImage] = []
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as decoders:
        if card is None:
            images += decoders.map(lambda data: decode(data, job.preprocess), files)
        else:
            for group in batched(files, together):
                images += decode_on_card(group, job.preprocess, card, decoders.map)
    seconds = time.perf_counter() - start
    return seconds, torch.from_numpy(np.stack([image.pixels for image in images if image.pixels is not None]))


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
    assignment = Assignment(job, _RUN, str(run), sha256_of(Path(job.model.checkpoint)), None)
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
            "preprocess": {"decoder": args.decoder, "resize": None if args.no_resize else 256},
            "ablation": ablation_of(ablation),
            "output": "unused",
        }
    )


def _tars(args: argparse.Namespace, folder: Path) -> list[Path]:
    """The tars of --tars, or new tars of made-up photos."""
    if args.tars:
        return sorted(args.tars.glob("*.tar"))
    return made_up_tars(folder, max(args.shards), args.images, size=args.photo, repeat=args.repeat_photos)


def made_up_tars(
    folder: Path, shards: int, images: int, *, size: Sequence[int] = _JPEG_SIZE, repeat: bool = False
) -> list[Path]:
    """Tars of photos that take as long to decode as real ones, in folder/tars.

    Args:
        folder: of the tars.
        shards: how many tars.
        images: of each tar.
        size: width and height of a photo in pixels.
        repeat: whether all tars hold the same photos, which are then made once.
    """
    (folder / "tars").mkdir()
    random = np.random.default_rng(0)
    content = b""
    paths = []
    for number in range(shards):
        if not (repeat and content):
            members = []
            for image in range(images):
                key = f"{number:03d}{image:05d}"
                members += [(f"{key}.jpg", _photo(random, size)), (f"{key}.cls", b"0")]
            content = tar_of(members)
        paths.append(write_tar(folder / "tars", content, f"{number:03d}.tar"))
    return paths


def _photo(random: np.random.Generator, size: Sequence[int]) -> bytes:
    """A JPEG that takes as long to decode as a photo of its size: shapes and grain, 100 kB or so of 500 x 375."""
    width, height = size
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
    grain = random.normal(0, 12, (height, width, 3))
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
    parser.add_argument("--decoder", choices=["pillow", "nvjpeg"], default="pillow", help="preprocess.decoder")
    parser.add_argument("--no-resize", action="store_true", help="preprocess.resize: null, for photos of 224 x 224")
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 6], help="one or two sizes of the end-to-end run")
    parser.add_argument("--images", type=int, default=32, help="of a made-up shard")
    parser.add_argument("--photo", type=int, nargs=2, default=_JPEG_SIZE, help="width and height of made-up photos")
    parser.add_argument("--repeat-photos", action="store_true", help="make the photos of one shard, and repeat them")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if len(set(args.shards)) != len(args.shards) or len(args.shards) > 2:
        parser.error("--shards takes one size, or two different ones")
    return args


if __name__ == "__main__":
    main()
