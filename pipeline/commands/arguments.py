"""Arguments and options that several commands take, and how they are read.

Not covered: what one command takes alone (the files beside this one).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.manifests.errors import RequestError

if TYPE_CHECKING:  # pydantic takes longer to load than all else
    from smoothcert.manifests.job import Job, Storage
    from smoothcert.manifests.suite import Suite

JobFile = Annotated[
    Path, typer.Argument(metavar="JOB|SUITE", help="Job file or suite file (YAML).", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Set a key of the file; repeatable."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the first N images; the run is marked PARTIAL.")
]
StrictVersions = Annotated[
    bool, typer.Option("--strict-versions", help="Refuse machines whose versions or devices differ.")
]
UnsafeOverwrite = Annotated[
    bool, typer.Option("--unsafe-overwrite", help="Continue even if the output lets files be overwritten.")
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run the code that model.architecture names (python:...).")
]
AdoptAcross = Annotated[
    bool, typer.Option("--adopt-across", help="Also take over shards that other versions or devices computed.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout; messages go to stderr.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists, unless it lies in a run.")]
StorageSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--storage",
        metavar="KEY=VALUE",
        help="A key of `storage`, as in a job file, such as anonymous=true; repeatable.",
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(metavar="FILE|imagenet-1k", help="Names of the classes on the page: a line each, or JSON."),
]


def place(url: str) -> str:
    """Make the path of a run, or of an output, absolute. A name that exists is a path, not a URL."""
    from smoothcert.manifests.locations import anchored

    return anchored(url)


def place_if_given(url: str | None) -> str | None:
    return None if url is None else place(url)


def weights_if_given(url: str | None) -> str | None:
    """As `model.checkpoint` in a job file: a name of the hub stays as it is."""
    from smoothcert.manifests.locations import Anchored

    return None if url is None else str(Anchored(from_hub=True).anchor(url, Path.cwd()))


def storage_of_options(settings: list[str] | None) -> "Storage":
    from smoothcert.manifests.job import storage_of

    return storage_of(settings or ())


def refuse_url(output: Path, what: str) -> None:
    """Path would make a folder `s3:` here."""
    if output.parts[:1] and output.parts[0].endswith(":"):
        raise RequestError(f"{what}: {output.parts[0]}// is not written to; name a folder of this machine")


def load(job_file: Path, overrides: list[str] | None = None, limit: int | None = None) -> "Job | Suite":
    from smoothcert.workers.networks.described_jobs import load_job_or_suite

    return load_job_or_suite(job_file, with_limit(overrides, limit))


def with_limit(overrides: list[str] | None, limit: int | None) -> list[str]:
    """What --set and --limit change in a file."""
    return [*(overrides or []), *([] if limit is None else [f"images.limit={limit}"])]


RunFolder = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Folder of a run: OUTPUT/RUN_ID.", show_default=False, callback=place),
]
FolderOfRuns = Annotated[
    str,
    typer.Argument(metavar="OUTPUT", help="Folder that holds the runs.", show_default=False, callback=place),
]
Target = Annotated[
    str,
    typer.Argument(metavar="RUN|JOB", help="Folder of a run, or a job file.", show_default=False),
]
