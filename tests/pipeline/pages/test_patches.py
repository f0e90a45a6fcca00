"""Images that fell: which are chosen, and that the patch lies on the picture."""

from pathlib import Path

import numpy as np

from smoothcert.pipeline.pages.patches import successes_of
from smoothcert.pipeline.pages.pictures import Box, pictures_of
from smoothcert.workers.runs.run import open_run
from tests.helpers.judged_runs import CROP, image, judged_run
from tests.helpers.studies import attack

CLOSE = [0] * 7 + [1] * 5


def test_the_patch_lies_on_the_picture(run: Path) -> None:
    """The rest of the picture is the image of the tar; images of two shards keep their order."""
    opened = open_run(str(run))
    rows = opened.images()
    rows = rows.filter(rows["prediction"].is_valid())
    right = rows.filter((rows["label"].to_numpy() == rows["prediction"].to_numpy()).tolist())
    keys = right["key"].to_pylist()
    found = successes_of(opened, [attack(opened, dict.fromkeys(keys, True), (2, 3))], 99)
    assert [one.key for one in found] == keys
    assert len({one.shard for one in found}) == 2
    for one, picture in zip(found, pictures_of(right, opened), strict=True):
        assert one.box == Box(top=1, left=2, height=2, width=3)
        expected, patched = np.array(picture.image), np.asarray(one.picture.image)
        expected[1:3, 2:5] = (255, 0, 0)
        assert np.array_equal(patched, expected)
        assert np.array_equal(np.asarray(one.patch), expected[1:3, 2:5])


def test_the_nearest_to_a_certificate_come_first(tmp_path: Path) -> None:
    """No more than asked for, each image once; with labels, only what was right."""
    labels = {"a": 0, "b": 1, "c": 0, "d": 0}
    run = judged_run(tmp_path, {"a.tar": [image(key, CLOSE, label) for key, label in labels.items()]})
    second = attack(run, {"b": True, "c": True, "d": True}, seed=2, slack={"c": -9, "d": 1})
    found = successes_of(run, [attack(run, {"a": True, "c": True, "d": False}, seed=1), second], 9)
    assert [(one.key, one.slack, one.label, one.prediction, one.becomes) for one in found] == [
        ("d", -3, 0, 0, 1),
        ("a", -3, 0, 0, 1),
        ("c", -3, 0, 0, 1),
    ]
    assert len(successes_of(run, [second], 1)) == 1
    assert successes_of(run, [attack(run, {"a": False, "b": None}, seed=3)], 9) == ()


def test_without_labels_every_image_that_fell_counts(tmp_path: Path) -> None:
    images = {"shards": "unused", "label": None}
    run = judged_run(tmp_path, {"a.tar": [image("a", CLOSE, None), image("b", [1] * CROP, None)]}, images=images)
    (one, two) = successes_of(run, [attack(run, {"a": True, "b": True})], 9)
    assert (one.label, one.prediction, two.prediction) == (None, 0, 1)


def test_without_a_tar_there_is_the_patch_alone(tmp_path: Path) -> None:
    run = judged_run(tmp_path, {"a.tar": [image("a", CLOSE)]})
    (one,) = successes_of(run, [attack(run, {"a": True})], 9)
    assert one.picture.image is None
    assert one.picture.reason.startswith("its tar is out of reach")
    assert one.patch.size == (2, 2)
