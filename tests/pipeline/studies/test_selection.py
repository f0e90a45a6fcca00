"""Which images a study measures."""

from pathlib import Path

import numpy as np
import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.studies.selection import Choice, Only, all_images, choose, voted_images
from smoothcert.workers.runs.run import open_run
from tests.helpers import finished_runs

SHARDS = {0: 40, 3: 25}


def candidates(shards=SHARDS):
    yield from ((shard, np.arange(images)) for shard, images in shards.items())


def chosen(**choice):
    return choose(candidates(), Choice(**{"limit": 12, "seed": 0} | choice))


def test_as_many_are_drawn_as_were_asked_for():
    found = chosen()
    assert sum(map(len, found.images.values())) == 12
    assert found.candidates == 65
    assert all(tuple(sorted(set(images))) == images for images in found.images.values())
    assert chosen(limit=None).images == {shard: tuple(range(images)) for shard, images in SHARDS.items()}
    assert chosen(limit=1000).images == chosen(limit=None).images


def test_the_seed_decides_and_more_images_hold_fewer():
    """A larger sample continues a smaller one."""
    assert chosen().images == chosen().images != chosen(seed=1).images
    few, many = chosen(), chosen(limit=30)
    assert all(set(images) <= set(many.images[shard]) for shard, images in few.images.items())


def test_the_draw_depends_on_seed_shard_and_position_alone():
    """A candidate less, as a shard that comes first, changes nothing for the others."""
    whole = choose(candidates(), Choice(12, 0))
    without = choose(((shard, there[there != 7]) for shard, there in reversed([*candidates()])), Choice(12, 0))
    assert sum(map(len, without.images.values())) == 12
    kept = {(shard, image) for shard, images in whole.images.items() for image in images if image != 7}
    assert kept <= {(shard, image) for shard, images in without.images.items() for image in images}
    assert without.candidates == 63


def test_every_image_is_equally_likely():
    counts = np.zeros(65)
    for seed in range(600):
        for shard, images in chosen(seed=seed).images.items():
            counts[[image + (40 if shard else 0) for image in images]] += 1
    expected = 600 * 12 / 65
    assert ((counts - expected) ** 2 / expected).sum() < 110  # chi-squared of 64 degrees, p = 0.0003


@pytest.mark.parametrize(
    ("only", "what"), [(Only.certified, "certified images"), (None, "images"), (Only.all, "images")]
)
def test_nothing_to_choose_from_is_one_line(only, what):
    with pytest.raises(RequestError, match=f"there are no {what} to choose from"):
        choose(iter([(0, np.arange(0))]), Choice(5, 0, only))


def test_certified_and_uncertified_images_are_those_of_the_stored_column(finished: Path) -> None:
    run = open_run(finished)
    rows, votes = run.images(["shard", "index"]).to_pylist(), run.votes()
    voted = [number for number, own in enumerate(votes) if own[0] >= 0]
    found = {
        only: {
            (run.tasks[shard].shard.name, int(image))
            for shard, images in voted_images(run, (2, 2), only)
            for image in images
        }
        for only in Only
    }
    assert found[Only.all] == {(rows[number]["shard"], rows[number]["index"]) for number in voted}
    assert found[Only.certified] | found[Only.uncertified] == found[Only.all]
    assert not found[Only.certified] & found[Only.uncertified]
    largest = run.images(["shard", "index", "max_certified_patch"]).to_pylist()
    assert found[Only.certified] == {
        (row["shard"], row["index"]) for row in largest if (row["max_certified_patch"] or 0) >= 2
    }


def test_a_run_that_is_not_complete_is_refused(run: Path) -> None:
    finished_runs.file_of(run).unlink()
    with pytest.raises(RequestError, match=r"the run is not complete \(1 shard missing\)"):
        list(voted_images(open_run(run), (2, 2), Only.all))


def test_a_patch_that_is_larger_than_the_image_is_refused(finished: Path) -> None:
    with pytest.raises(RequestError, match="patch 17 x 2"):
        list(voted_images(open_run(finished), (17, 2), Only.all))


def test_all_images_are_counted_in_the_tars(finished: Path) -> None:
    run = open_run(finished)
    assert [(shard, len(there)) for shard, there in all_images(run)] == [(0, 6), (1, 7)]
