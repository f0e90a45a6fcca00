"""Which kind of source a path is."""

from pathlib import Path
from typing import NamedTuple

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.names import listed
from smoothcert.pipeline.pack.csv_file import list_csv
from smoothcert.pipeline.pack.folders import list_folders
from smoothcert.pipeline.pack.listing import Listing
from smoothcert.pipeline.pack.parquet_files import list_parquet
from smoothcert.workers.storage.disk import reason_of
from smoothcert.workers.storage.file_kinds import HEAD_BYTES, kind_of

KINDS = "a folder of class folders, a Parquet file or a folder of them, or a CSV file"


class Choice(NamedTuple):
    """What to take of a source: columns (None: the usual ones), labels or none, and a split of Parquet files."""

    image: str | None = None
    label: str | None = None
    labelled: bool = True
    split: str | None = None


def list_source(source: str, choice: Choice, copies: Path, *, shuffled: bool) -> Listing:
    """List the images of a source.

    Args:
        source: a path.
        choice: what to take of it.
        copies: a folder for copies of what cannot be read in any order.
        shuffled: whether images will be read in any order.
    Raises:
        RequestError: there is no such source, or nothing in it can be packed.
    """
    if "://" in source:
        raise RequestError(f"{source}: cannot be read from there; fetch it, and name {KINDS}")
    path = Path(source)
    try:
        return _list(path, choice, copies, shuffled=shuffled)
    except OSError as error:
        raise RequestError(
            f"{error.filename or path}: cannot be read ({reason_of(error)}); make it readable, and try again"
        ) from None


def _list(path: Path, choice: Choice, copies: Path, *, shuffled: bool) -> Listing:
    if (path.is_dir() and any(path.glob("*.parquet"))) or path.suffix.lower() == ".parquet":
        return list_parquet(path, copies, **choice._asdict(), shuffled=shuffled)
    if choice.split is not None:
        raise RequestError(f"--split {choice.split}: is for Parquet files; name the folder of the split instead")
    if path.is_dir():
        if tars := sorted(path.glob("*.tar")):
            names = listed(tar.name for tar in tars)
            raise RequestError(f"{path}: holds tars ({names}); a job reads them as they are: images.shards: {path}")
        if choice.image or choice.label:
            raise RequestError("--image, --label: name columns, but folders have none; remove them")
        return list_folders(path, labelled=choice.labelled)
    if path.suffix.lower() in (".csv", ".tsv"):
        return list_csv(path, image=choice.image, label=choice.label, labelled=choice.labelled)
    with path.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES))
    raise RequestError(f"{path}: is no source of images: {kind}; name {KINDS}")
