"""Paths, URLs and hub names become absolute as the field that holds them demands."""

from pathlib import Path
from typing import Any

import pytest

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import load_job
from smoothcert.manifests.locations import READ_ONLY, Anchored, anchored, beside, is_web, name_of, recorded_url


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


@pytest.mark.parametrize("scheme", READ_ONLY)
def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, scheme: str) -> None:
    """When the job is read, in one line."""
    path = tmp_path / "job.yaml"
    path.write_text(
        f"name: n\nimages: {{shards: a.tar}}\noutput: {scheme}://h/runs\nablation: {{kind: column, size: 19}}\n"
        "model: {architecture: vit_tiny_patch16_224, checkpoint: w.pt, classes: 10}\n"
    )
    with pytest.raises(RequestError, match=rf"output: .*only read from {scheme}://; name a folder or s3://BUCKET/KEY"):
        load_job(path)
    assert load_job(path, ["output=s3://b/runs"]).output == "s3://b/runs"


@pytest.mark.parametrize(
    ("url", "recorded", "name"),
    [
        ("https://me:pw@h:8/d/a.tar?sig=x/y#z", "https://h:8/d/a.tar", "a.tar"),
        ("HTTP://h/a%20b.tar", "http://h/a%20b.tar", "a b.tar"),
        ("http://h/a%2Fb.tar", "http://h/a%2Fb.tar", "a%2Fb.tar"),
        ("http://h/d/", "http://h/d/", "d/"),
        ("s3://b/what?.tar", "s3://b/what?.tar", "what?.tar"),
        ("/d/a%20b?.tar", "/d/a%20b?.tar", "a%20b?.tar"),
        ("hf://datasets/o/n@v1/a.tar", "hf://datasets/o/n@v1/a.tar", "a.tar"),
    ],
)
def test_the_query_of_a_web_server_is_no_part_of_a_name(url: str, recorded: str, name: str) -> None:
    """Nor is it recorded. Other URLs and paths may hold any character."""
    assert (recorded_url(url), name_of(url)) == (recorded, name)
    assert is_web(url) == url.lower().startswith("http")


@pytest.mark.parametrize(
    ("url", "name", "found"),
    [
        ("/d/_info.json", "a?.tar", "/d/a?.tar"),
        ("s3://b/d/_info.json", "e/a.tar", "s3://b/d/e/a.tar"),
        ("https://h/d/_info.json?sig=x", "a b#.tar", "https://h/d/a%20b%23.tar"),
        ("https://h/d/_info.json", "a%20b%2Fc.tar", "https://h/d/a%20b%2Fc.tar"),  # it is quoted already
        ("https://h/d/_info.json", "100%.tar", "https://h/d/100%25.tar"),
        ("https://h/d/_info.json", "../e/a.tar", "https://h/e/a.tar"),
        ("https://h/d/_info.json", "/e/a.tar", "https://h/e/a.tar"),
        ("https://h/d/_info.json", "timm:a.tar", "https://h/d/timm%3Aa.tar"),
        ("https://h/d/_info.json", "https://i/a.tar?x=y", "https://i/a.tar?x=y"),
    ],
)
def test_a_file_beside_another(url: str, name: str, found: str) -> None:
    """A name becomes a part of a URL that leads to just this name."""
    assert beside(url, name) == found
