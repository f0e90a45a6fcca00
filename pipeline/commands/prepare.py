"""Commands before a run: write a job file, pack images, convert a checkpoint, train a network."""

import json
from pathlib import Path
from typing import Annotated

import typer

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.commands.arguments import AsJson, Overrides, refuse_url
from smoothcert.pipeline.console.exit_codes import ends_with_exit_code, stdout_alone
from smoothcert.pipeline.console.looks import console_of, say


@ends_with_exit_code
def init(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Weights: a name of timm, hf-hub:OWNER/NAME, a folder with config.json, or a file.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Tars: a folder, a pattern, or an index file.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="JOB", help="Job file to write; it must not exist.")
    ] = Path("job.yaml"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write a job file for a network and its images, with comments; plan and certify accept it."""
    from smoothcert.pipeline.init.init import init as write_job

    refuse_url(output, "--output")
    written = write_job(model, data, output, overrides or ())
    if as_json:
        print(json.dumps(written.as_json()))
        return
    console = console_of()
    say(console, f"{written.path}: {written.summary}")
    for notice in written.notices:
        say(console, f"notice: {notice}")
    say(console, f"check its comments, then run: smoothcert plan {written.path}")


@ends_with_exit_code
def pack(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder of class folders, Parquet file or folder, or CSV file.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the tars and their index.", show_default=False)
    ],
    shard_images: Annotated[
        int | None, typer.Option(min=1, help="Most images in a tar; default: 1000, or any with --shard-bytes.")
    ] = None,
    shard_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most bytes in a tar, such as 500M.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of the images.")] = 0,
    in_order: Annotated[bool, typer.Option("--in-order", help="Keep the order of the source.")] = False,
    names: Annotated[str, typer.Option(metavar="PATTERN", help="Names of the tars.")] = "%05d.tar",
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|imagenet-1k", help="Names of the classes in their order; default: those of the source."
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of images or paths; default: the usual one.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of labels; default: the usual one.")
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Pack the images alone.")] = False,
    split: Annotated[
        str | None, typer.Option(help="Of a folder of Parquet files, those of this split.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack images into tars that certify reads; run the same command again to continue."""
    from smoothcert.pipeline.console.bars import counting
    from smoothcert.pipeline.pack.pack import Options, bytes_of, lines_of
    from smoothcert.pipeline.pack.pack import pack as pack_images
    from smoothcert.pipeline.pack.shards import Limits
    from smoothcert.pipeline.pack.sources import Choice
    from smoothcert.workers.tars.class_names import class_names

    refuse_url(output, "OUT")
    if no_labels and label is not None:
        raise RequestError("--label and --no-labels exclude each other; use one")
    most_bytes = None if shard_bytes is None else bytes_of(shard_bytes)
    options = Options(
        choice=Choice(image, label, labelled=not no_labels, split=split),
        limits=Limits(1000 if shard_images is None and most_bytes is None else shard_images, most_bytes),
        seed=None if in_order else seed,
        names=names,
        classes=None if classes is None else class_names(classes, "--classes"),
    )
    with counting(console_of(stderr=True)) as hear:
        packed = pack_images(source, output, options, hear)
    if as_json:
        print(json.dumps(packed.index.as_json()))
    else:
        for line in lines_of(packed, output):
            say(console_of(), line)


@ends_with_exit_code
def import_checkpoint(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Checkpoint of torch, or the index of a split one.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: beside FILE, as .safetensors.", show_default=False)
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="State dict to take if there are several; default: the usual one.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a pickled or split checkpoint to one safetensors file, without running anything in it."""
    from smoothcert.pipeline.import_checkpoint import import_checkpoint

    imported = import_checkpoint(file, output, key)
    if as_json:
        print(json.dumps(imported.as_json()))
    else:
        say(console_of(), imported.line)


@ends_with_exit_code
def finetune(
    training: Annotated[Path, typer.Argument(metavar="TRAIN", help="Training file (YAML).", show_default=False)],
    overrides: Overrides = None,
    local: Annotated[
        bool, typer.Option("--local", help="Train in this process, without Ray, whatever the file says.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier whose smoothed form can be certified; run the same command again to continue."""
    from smoothcert.pipeline.finetune import finetune as finetune_network
    from smoothcert.workers.networks.described_jobs import load_training

    loaded = load_training(training, [*(overrides or []), *(["execution.workers=1"] if local else [])])
    finetune_network(loaded, json_to=stdout_alone() if as_json else None)
