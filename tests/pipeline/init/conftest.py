"""Tars of photos."""

from pathlib import Path

import pytest

from tests.helpers.tars import png, tar_of, write_tar


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tars of images of different sizes, with the labels 0, 1 and 2."""
    folder = tmp_path / "val"
    folder.mkdir()
    for number in range(2):
        members = [
            part
            for seed in range(6 * number, 6 * number + 6)
            for part in ((f"{seed:04d}.png", png(20 + seed, 24, seed)), (f"{seed:04d}.cls", b"%d\n" % (seed % 3)))
        ]
        write_tar(folder, tar_of(members), f"{number:02d}.tar")
    return folder
