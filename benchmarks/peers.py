"""How fast we certify against ART, the peer on PyPI, and whether both give the same answers.

    ours  SmoothedViT.votes and certificates.certify
    art   adversarial-robustness-toolbox: one offset at a time, every token is embedded, then those shown are kept

Same weights, images, ablations at stride 1 and threads, float32. Each side is a process that loads once; they take
turns, and a round's ratio is that of its two turns. ART may take the images in batches of any size; the fastest is
used. It hides pixels after normalisation and we hide them before, so mean is 0 and std is 1.

ART gets an environment of its own (peer_environment.py). How answers are compared: peer_answers.py.

A busy machine slows ART more: ART has thousands of short steps, and each waits for the slowest thread. So the fastest
turns are compared too, besides the median of the rounds, and the load before the start is printed.

Not covered: strides above 1, which ART does not have.

Run from the repository root: python -m benchmarks.peers [--images 16] [--rounds 5]
An image of blocks has 50,176 ablations: take --images 1 --rounds 1, a quarter of an hour.
Source: github.com/Trusted-AI/adversarial-robustness-toolbox, art/estimators/certification/derandomized_smoothing.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from timm.models import VisionTransformer
from torch import Tensor

from benchmarks.peer_answers import CLEAR, Agreement, compare, geometry_of
from benchmarks.peer_environment import make_environment
from benchmarks.peer_sides import Settings
from smoothcert.manifests.errors import RequestError, RunError, SmoothcertError
from smoothcert.manifests.job import Images, Model, Preprocess
from smoothcert.workers.ablations.threats import Threat
from smoothcert.workers.ablations.unions import reach
from smoothcert.workers.networks.checkpoints import recognise
from smoothcert.workers.networks.classifiers import build_classifier, load_classifier
from smoothcert.workers.tars.images import decode
from smoothcert.workers.tars.shard_reader import read_samples

_ROOT = Path(__file__).resolve().parents[1]


class Round(NamedTuple):
    """Seconds of each side's turn."""

    ours: float
    art: float


class SideProcess:
    """One side of the comparison, at work in a process of its own.

    Args:
        name: ours or art.
        python: of its environment.
        settings: a file.
        threads: for libraries that read the environment.
    """

    def __init__(self, name: str, python: Path, settings: Path, threads: int) -> None:
        self.name = name
        self._errors = settings.with_name(f"{name}.log")
        self._answers = settings.with_name(f"{name}.npz")
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.peer_sides", name, settings],
                cwd=_ROOT,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def loaded(self) -> dict[str, Any]:
        """Wait until the side is loaded; return its versions and how many images it takes at once."""
        return self._read()

    def turn(self) -> float:
        """Seconds of one pass over all images."""
        with suppress(BrokenPipeError):  # _read reports why
            self._stdin.write(b"go\n")
        return self._read()["seconds"]

    def answers(self) -> dict[str, NDArray[Any]]:
        """The answers of the last pass; ends the process."""
        self._stdin.close()
        if self._process.wait():
            raise self._failure()
        with np.load(self._answers) as arrays:
            return dict(arrays)

    def _read(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line:
            self._process.wait()
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> RunError:
        lines = self._errors.read_text().split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return RunError(f"side {self.name} ended with exit code {self._process.returncode}: {said[:300]}")


def main() -> None:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sides end too
    try:
        record = measure(args, Console(stderr=True))
    except SmoothcertError as error:
        print(f"peers: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    _report(args, record)
    print(json.dumps(record))
    if not record["agrees"]:
        sys.exit("peers: the answers differ by more than fragile votes explain")


def measure(args: argparse.Namespace, log: Console) -> dict[str, Any]:
    """Run the rounds of both sides and compare their answers; return what is printed as JSON."""
    crop = _crop_of(args.model)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            folder=folder,
            architecture=args.model,
            classes=args.classes,
            crop=crop,
            kind=args.kind,
            size=args.size,
            patch=args.patch,
            threads=args.threads,
            device=args.device,
            peer_batch=args.peer_batch,
        )
        reach(geometry_of(settings), Threat(args.patch, args.patch))  # a patch that does not fit is refused early
        python = make_environment(args.environment.absolute(), log)
        file = Path(folder, "settings.json")
        settings.write(file)
        _write_weights(args, crop, Path(folder, "weights.safetensors"))
        images = _read_images(args, crop) if args.images_from else make_images(args.images, crop).numpy()
        np.save(Path(folder, "images.npy"), images)
        with (
            SideProcess("ours", Path(sys.executable), file, args.threads) as ours,
            SideProcess("art", python, file, args.threads) as art,
        ):
            loaded = {side.name: side.loaded() for side in (ours, art)}
            rounds = []
            for number in range(1, args.rounds + 1):
                rounds.append(Round(ours.turn(), art.turn()))
                log.print(f"round {number}: ours {rounds[-1].ours:.1f} s, ART {rounds[-1].art:.1f} s")
            agreement = compare(settings, ours.answers(), art.answers())
    return {
        **{key: value for key, value in vars(args).items() if key not in ("environment", "images_from", "checkpoint")},
        "images": len(images),
        "load_before": round(load, 2),
        **{name: _record_of(loaded[name], [getattr(each, name) for each in rounds], len(images)) for name in loaded},
        "times_faster": _spread([each.art / each.ours for each in rounds]),
        "times_faster_fastest_turns": round(min(each.art for each in rounds) / min(each.ours for each in rounds), 4),
        "agreement": agreement._asdict(),
        "agrees": agreement.holds,
    }


def make_images(images: int, crop: int) -> Tensor:
    """[images, crop, crop, 3] uint8: tinted low-frequency patterns, the same on every machine.

    The first image has equal columns, so that its ablations agree. Columns differ more from image to image.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(images, 3, 6, 6, generator=generator) + torch.randn(images, 3, 1, 1, generator=generator)
    varied = F.interpolate(coarse, size=crop, mode="bicubic").mul(2).sigmoid()
    steady = varied[..., :1]
    share = torch.linspace(0, 1, images)[:, None, None, None]
    return (steady.lerp(varied, share) * 255).round().byte().permute(0, 2, 3, 1).contiguous()


@torch.no_grad()
def fill_weights(network: VisionTransformer) -> None:
    """Seeded weights that look at colours: larger in the embedding than at the start of a training, and no large
    biases or positions, so that votes depend on what an ablation shows.
    """
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif name.endswith(("bias", "pos_embed", "cls_token")):
            values *= 0.05
        elif parameter.ndim > 1:
            gain = 4.0 if "patch_embed" in name else 1.5 if "qkv" in name else 1.0
            values *= gain / parameter[0].numel() ** 0.5
        parameter.copy_(values)


def _crop_of(architecture: str) -> int:
    """The side of the images that timm builds the architecture for: ART supports no other."""
    config = timm.get_pretrained_cfg(architecture)
    if config is None:
        raise RequestError(f"--model {architecture}: timm knows no such model; name one such as vit_small_patch16_224")
    return config.input_size[-1]


def _write_weights(args: argparse.Namespace, crop: int, file: Path) -> None:
    if args.checkpoint is None:
        network = build_classifier(Model(architecture=args.model, checkpoint="none", classes=args.classes), crop)
        fill_weights(network)
    else:
        key = recognise(args.checkpoint, None).key
        model = Model(architecture=args.model, checkpoint=str(args.checkpoint), classes=args.classes)
        network = load_classifier(model, Preprocess(resize=None, crop=crop), args.checkpoint, key)
    safetensors.torch.save_file(network.state_dict(), file)


def _read_images(args: argparse.Namespace, crop: int) -> NDArray[np.uint8]:
    """The first images of the tars that can be decoded."""
    preprocess = Preprocess(resize=round(crop * 256 / 224), crop=crop)
    members = Images(shards="unused", label=None)
    samples = (sample for tar in args.images_from for sample in read_samples(tar, members, classes=args.classes))
    decoded = (decode(sample.image, preprocess).pixels for sample in samples)
    images = list(islice((pixels for pixels in decoded if pixels is not None), args.images))
    if len(images) < args.images:
        raise RequestError(
            f"--images-from: {len(images)} images can be decoded, expected {args.images}; name more tars"
        )
    return np.stack(images)


def _record_of(loaded: dict[str, Any], seconds: list[float], images: int) -> dict[str, Any]:
    return {
        "versions": loaded["versions"],
        "images_at_once": loaded["batch"],
        "seconds": [round(turn, 3) for turn in seconds],
        "images_per_s": _spread([images / turn for turn in seconds]),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def _report(args: argparse.Namespace, record: dict[str, Any]) -> None:
    console = Console()
    table = Table(
        title=f"{args.model}, {args.kind}s b={args.size} s=1, {record['images']} images, {args.threads} threads"
    )
    for heading in ("side", "versions", "images at once", "images/s", "min", "max"):
        table.add_column(heading, justify="left" if heading in ("side", "versions") else "right")
    for side in ("ours", "art"):
        row = record[side]
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        speed = (f"{row['images_per_s'][key]:.4g}" for key in ("median", "min", "max"))
        table.add_row(side, versions, str(row["images_at_once"]), *speed)
    console.print(table)
    faster, agreement = record["times_faster"], Agreement(**record["agreement"])
    console.print(
        f"ours is {faster['median']:.2f} times as fast, {faster['min']:.2f} to {faster['max']:.2f} in {args.rounds} "
        f"rounds; by the fastest turn of each {record['times_faster_fastest_turns']:.2f} (load before: "
        f"{record['load_before']}; other work slows the side with more and shorter steps, ART, by more).\n"
        f"votes: {agreement.moved_votes} of {agreement.votes} differ; {agreement.fragile_votes} of ours are fragile, "
        f"with margins below {CLEAR}; images with more than that explains: {agreement.unexplained_images}.\n"
        f"certified at {args.patch} x {args.patch}: ART {agreement.certified_art}, our margin rule "
        f"{agreement.certified_margin} ({agreement.certified_by_tie} by a tie), exact rule {agreement.certified_exact} "
        f"of {record['images']} images; the exact rule's largest square is larger in {agreement.larger_by_exact}.\n"
        f"ART's rule and the same rule on our votes, every image and size: {agreement.rules_differ} differ, "
        f"{agreement.rules_differ_same_counts} of them with equal counts.",
        soft_wrap=True,
    )


def _file(name: str) -> Path:
    if not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {name}")
    return Path(name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and check ours against ART.")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--environment", type=Path, default=_ROOT / "build" / "peers-venv", help="of ART; made once")
    parser.add_argument("--model", default="vit_tiny_patch16_224", help="a timm VisionTransformer that ART knows")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--checkpoint", type=_file, help="weights of the model; without it, seeded ones")
    parser.add_argument("--images-from", type=_file, nargs="+", metavar="TAR", help="without it, made ones")
    parser.add_argument("--kind", choices=("column", "row", "block"), default="column")
    parser.add_argument("--size", type=int, default=19, help="of the ablation, pixels")
    parser.add_argument("--patch", type=int, default=5, help="side of the square to certify against, pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peer-batch", type=int, help="images that ART takes at once; without it, the fastest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
