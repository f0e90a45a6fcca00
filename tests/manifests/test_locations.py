"""Paths, URLs and hub names become absolute as the field that holds them demands."""

from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.job import load_job
from smoothcert.manifests.locations import Anchored, anchored


@pytest.mark.parametrize(
    ("mark", "value", "expected"),
    [
        (Anchored(), "a/../b", "BASE/b"),
        (Anchored(), "/a", "/a"),
        (Anchored(), "s3://bucket/a", "s3://bucket/a"),
        (Anchored(), "timm:a", "BASE/timm:a"),  # only weights come from the hub
        (Anchored(from_hub=True), "timm:a", "timm:a"),
        (Anchored(from_hub=True), "timm:there", "BASE/timm:there"),  # a file has that very name
        (Anchored(many=True), ["a", "s3://b/c"], ["BASE/a", "s3://b/c"]),
        (Anchored(words=("imagenet-1k",)), "imagenet-1k", "imagenet-1k"),
        (Anchored(words=("imagenet-1k",)), "names.txt", "BASE/names.txt"),
        (Anchored(words=("imagenet-1k",)), ["cat", "owl"], ["cat", "owl"]),
        (Anchored(), None, None),  # the model refuses it
        (Anchored(), "", ""),
    ],
)
def test_a_relative_path_starts_from_the_base(tmp_path: Path, mark: Anchored, value: Any, expected: Any) -> None:
    """URLs, hub names, and values that are not text stay."""
    (tmp_path / "timm:there").touch()
    found = mark.anchor(value, tmp_path)
    if isinstance(expected, list):
        assert found == [text.replace("BASE", str(tmp_path)) for text in expected]
    else:
        assert found == (expected and expected.replace("BASE", str(tmp_path)))


def test_a_path_starts_from_the_current_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the paths that commands take."""
    monkeypatch.chdir(tmp_path)
    assert anchored("a") == str(tmp_path / "a")


def test_paths_in_a_mapping_of_an_override_start_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the key lies in the value of --set; and a job that is read from a record keeps its paths."""
    (tmp_path / "file").mkdir()
    path = tmp_path / "file" / "job.yaml"
    path.write_text(
        "name: n\nimages: {shards: a.tar}\noutput: runs\nablation: {kind: column, size: 19}\n"
        "model: {architecture: vit_tiny_patch16_224, checkpoint: w.pt, classes: 10}\n"
    )
    monkeypatch.chdir(tmp_path)
    job = load_job(path, ["images={shards: [b.tar, s3://c/d.tar]}"])
    assert job.images.shards == (str(tmp_path / "b.tar"), "s3://c/d.tar")
    assert job.model.checkpoint == str(tmp_path / "file" / "w.pt")
    record = job.model_dump(mode="json") | {"output": "relative"}
    assert type(job).model_validate(record).output == "relative"
