"""A limit takes the first images, in the order of the shards."""

from pathlib import Path

import pytest

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import Images, Storage
from smoothcert.manifests.shards import Shard, find_shards
from smoothcert.pipeline.certify.limits import limits_of
from smoothcert.workers.storage.store import AnyStore
from tests.helpers import jobs
from tests.helpers.tars import tar_of, write_tar

STORE = AnyStore(Storage())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shard, ...]:
    """Three tars of 2, 3 and 1 images."""
    folder = tmp_path_factory.mktemp("tars")
    for name, images in (("a.tar", 2), ("b.tar", 3), ("c.tar", 1)):
        write_tar(folder, tar_of(jobs.samples(0, images)), name)
    return find_shards(Images(shards=str(folder)), STORE)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, None),
        (1, [1, 0, 0]),
        (2, [2, 0, 0]),  # the end of a tar
        (3, [2, 1, 0]),
        (5, [2, 3, 0]),
        (6, None),  # all images: the run without limit
        (7, None),
    ],
)
def test_limits_are_those_of_the_first_images(
    shards: tuple[Shard, ...], limit: int | None, expected: list[int] | None
) -> None:
    """None where no image is left out."""
    assert limits_of(shards, Images(shards="any", limit=limit), STORE) == expected


def test_tars_beyond_the_limit_are_not_read(shards: tuple[Shard, ...], tmp_path: Path) -> None:
    """One that cannot be counted is an error only before the limit."""
    broken = Shard("x.tar", str(tmp_path / "x.tar"), 4, "")
    (tmp_path / "x.tar").write_bytes(b"text")
    assert limits_of([*shards, broken], Images(shards="any", limit=6), STORE) == [2, 3, 1, 0]
    with pytest.raises(ShardError, match=r"^images\.limit: cannot count the images of x\.tar: "):
        limits_of([broken, *shards], Images(shards="any", limit=6), STORE)
