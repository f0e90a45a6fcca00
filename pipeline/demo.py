"""The images of `smoothcert demo`: 20 labelled CIFAR-10 photographs that the package foolbox carries."""

import io
import tarfile
from importlib.resources import files
from pathlib import Path

from smoothcert.manifests.errors import RequestError
from smoothcert.workers.storage.disk import reason_of, remedy_for

_NAME = "demo-00.tar"


def pack_demo_images(folder: Path) -> Path:
    """Pack the photographs into FOLDER/demo-00.tar, unless it is there; gives the folder.

    Raises:
        RequestError: foolbox is not installed, or the folder cannot be written.
    """
    tar = folder / _NAME
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
    aside = tar.with_suffix(".part")
    try:
        with tarfile.open(aside, "w") as archive:
            for name, data in members:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        aside.rename(tar)
    finally:
        aside.unlink(missing_ok=True)


def _members() -> list[tuple[str, bytes]]:
    try:
        photographs = files("foolbox") / "data"
    except ModuleNotFoundError:
        raise RequestError("the demo's images come with foolbox; run: pip install 'smoothcert[demo]'") from None
    names = sorted(item.name for item in photographs.iterdir() if item.name.startswith("cifar10_"))
    members = []
    for name in names:  # such as cifar10_07_6.png: number, label
        key = name.removesuffix(".png")
        members.append((f"{key}.png", (photographs / name).read_bytes()))
        members.append((f"{key}.cls", key.rpartition("_")[2].encode()))
    return members
