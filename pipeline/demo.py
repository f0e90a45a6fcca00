"""The images of `smoothcert demo`: 20 labelled CIFAR-10 photographs from the package foolbox."""

import io
import tarfile
from importlib.util import find_spec
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.aside import written_aside
from smoothcert.workers.storage.disk import reason_of, remedy_for

_TAR_NAME = "demo-00.tar"


def pack_demo_images(folder: Path) -> Path:
    """Pack the photographs into FOLDER/demo-00.tar, if the tar does not exist yet, and return the folder.

    Raises:
        RequestError: foolbox is not installed, or the tar cannot be written.
    """
    tar = folder / _TAR_NAME
    try:
        if not tar.exists():
            _pack(_members(), tar)
    except OSError as error:
        raise RequestError(
            f"{tar} cannot be written: {reason_of(error)}; "
            f"{remedy_for(error, folder, 'name another folder with --folder')}"
        ) from None
    return folder


def _pack(members: list[tuple[str, bytes]], tar: Path) -> None:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(tar) as aside, tarfile.open(aside, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _members() -> list[tuple[str, bytes]]:
    """Name and content of each member of the tar: an image, then its label."""
    package = find_spec("foolbox")  # found, not imported: foolbox loads every framework that it supports
    if package is None or package.origin is None:
        raise RequestError("the demo needs the images in foolbox; run: pip install 'smoothcert[demo]'")
    photographs = Path(package.origin).parent / "data"
    names = sorted(item.name for item in photographs.iterdir() if item.name.startswith("cifar10_"))
    members = []
    for name in names:  # cifar10_07_6.png is image 7, of class 6
        key = name.removesuffix(".png")
        members.append((f"{key}.png", (photographs / name).read_bytes()))
        members.append((f"{key}.cls", key.rpartition("_")[2].encode()))
    return members
