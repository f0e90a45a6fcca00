"""Job files: what is read, and that each mistake is one line with file, key, value and remedy."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Storage, load_job, storage_of
from smoothcert.pipeline.cli import EXAMPLES


@pytest.fixture
def job_file(tmp_path):
    """A valid job file with relative paths."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: n\nimages: {shards: 'tars/a-{0..1}.tar'}\noutput: runs\nablation: {kind: column, size: 19}\n"
        "model: {architecture: vit_tiny_patch16_224, checkpoint: ~/w.pt, classes: 10}\n"
    )
    return path


@pytest.mark.parametrize("name", ["demo", "cifar10-test", "imagenet1k-val"])
def test_examples_are_valid(name):
    """The example jobs load."""
    assert load_job(EXAMPLES / f"{name}.yaml").patches


def test_paths_start_from_the_file_and_overrides_from_here(job_file, tmp_path, monkeypatch):
    """A relative path in the file starts from its folder, one in --set from the current directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = load_job(job_file, ["output=out"])
    assert job.images.shards == str(tmp_path / "tars" / "a-{0..1}.tar")
    assert job.output == str(tmp_path / "here" / "out")
    assert "~" not in job.model.checkpoint
    assert load_job(job_file, ["images.shards=s3://b/x.tar"]).images.shards == "s3://b/x.tar"


def test_one_pattern_to_ignore_is_a_list_of_one(job_file):
    """`ignore` is a list of patterns; without one it is empty."""
    assert load_job(job_file).model.ignore == ()
    assert load_job(job_file, ["model.ignore=criterion.*"]).model.ignore == ("criterion.*",)
    assert load_job(job_file, ['model.ignore=["criterion.*", "ema.*"]']).model.ignore == ("criterion.*", "ema.*")


def test_overrides_win_in_order(job_file):
    """--set reaches nested keys and keys that the file lacks."""
    job = load_job(job_file, ["ablation.stride=4", "ablation.stride=8", "execution.actors=auto", "patches=[23, 32]"])
    assert (job.ablation.stride, job.execution.actors, job.patches) == (8, None, (23, 32))


def test_an_override_replaces_what_is_there(job_file):
    """A mapping, too: its keys are not added to those of the file."""
    assert load_job(job_file, ["model.options={depth: 2}"]).model.options == {"depth": 2}
    assert load_job(job_file, ["model.options={depth: 2}", "model.options={}"]).model.options == {}
    assert load_job(job_file, ["model.options={depth: 2}", "model.options.a.b=3"]).model.options == {
        "depth": 2,
        "a": {"b": 3},
    }


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ablation.strid=4", r"ablation\.strid: unknown key; did you mean ablation\.stride\?"),
        ("stride=4", r"stride: unknown key; did you mean ablation\.stride\?"),
        ("ablation.stride=0", r"ablation\.stride: 0 .*greater than or equal to 1"),
        ("ablation.stride=true", r"ablation\.stride: True .*valid integer"),
        ("ablation.size=300", r"ablation\.size: 300 .*224 x 224"),
        ("ablation.kind=stripe", r"ablation\.kind: 'stripe' .*'column', 'row' or 'block'"),
        ("patches=[32, 500]", r"patches: 500 .*224 x 224"),
        ("preprocess.resize=100", r"preprocess\.resize: 100 .*at least 224"),
        ("preprocess.std=[1, 0, 1]", r"preprocess\.std: .*above 0"),
        ("model.classes=1", r"model\.classes: 1 .*greater than or equal to 2"),
        ("model.options={num_classes: 3}", r"model\.options: .*remove them"),
        ("execution.actors=many", r"execution\.actors: 'many' .*integer"),
        ("images.shards=[]", r"images\.shards: .*empty"),
        ("output=", r"output: None .*valid string"),
        ("nonsense", r"--set nonsense: expected key\.path=value"),
        ("name=[", r"not valid YAML"),
    ],
)
def test_each_mistake_is_one_line(job_file, override, says):
    """Key path, value and remedy, in one line."""
    with pytest.raises(RequestError) as error:
        load_job(job_file, [override])
    assert re.search(says, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", "comes twice"),
        ("- a\n", "is a mapping"),
        ("name: n\n", "images: missing; add it"),
        ("\x00", "YAML"),
    ],
)
def test_a_broken_file_names_itself(tmp_path, text, says):
    """A file that is no job says which and why."""
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=says) as error:
        load_job(path)
    assert all(line.startswith(str(path)) for line in str(error.value).splitlines())
    with pytest.raises(RequestError, match="cannot read"):
        load_job(tmp_path / "absent.yaml")


def test_a_job_survives_its_own_dump(job_file):
    """run.json keeps a job that loads again as the same job."""
    job = load_job(job_file)
    assert type(job).model_validate(yaml.safe_load(yaml.safe_dump(job.model_dump(mode="json")))) == job


NAMES = [
    "[b]",
    "{x,y}",
    "007",
    "1_000",
    "1e3",
    "x #y",
    "a: b",
    "*z",
    "~",
    "2026-01-01",
    "yes",
    "null",
    "&q",
    "%p",
    "@p",
]
NAMES += [
    "!t",
    "hf-hub:a",
    "timm:b",
    "we:/ird",
    "we://ird",
    "'q'",
    '"d"',
    "[x, y]",
    "with space",
    "$HOME",
    "back\\slash",
    "- a",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["images.shards", "model.checkpoint", "output"])
def test_a_name_that_exists_is_what_it_is_called(job_file, tmp_path, monkeypatch, name, key):
    """In --set and in the file: neither YAML, nor a URL, a name of the hub or a home is meant by it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    there = os.path.normpath(tmp_path / name)
    section, _, field = key.rpartition(".")
    for job in (load_job(job_file, [f"{key}={name}"]), load_job(job_file, [f"{key}={json.dumps(name)}"])):
        assert getattr(getattr(job, section) if section else job, field) == there
    assert load_job(job_file, [f"images.shards=[{json.dumps(name)}]"]).images.shards == (there,)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("~", "null", "'q'", '"d"', "timm:b", "we://ird")]
)
def test_an_output_that_is_to_be_made_is_called_as_it_is_written(job_file, tmp_path, monkeypatch, name):
    """A path in --set is text as it stands, but for quotes, null and URLs."""
    monkeypatch.chdir(tmp_path)
    assert load_job(job_file, [f"output={name}"]).output == os.path.normpath(tmp_path / name)


def test_paths_that_are_none(job_file, tmp_path, monkeypatch):
    """URLs, names of the hub, lists and homes are what they were where no file has their name."""
    monkeypatch.chdir(tmp_path)
    assert load_job(job_file, ["model.checkpoint=timm:b"]).model.checkpoint == "timm:b"
    assert load_job(job_file, ["output=timm:b"]).output == str(tmp_path / "timm:b")  # only weights come from the hub
    assert load_job(job_file, ["output=s3://b/k [x]"]).output == "s3://b/k [x]"
    assert load_job(job_file, ["images.shards=[a.tar, s3://b/c.tar]"]).images.shards == (
        str(tmp_path / "a.tar"),
        "s3://b/c.tar",
    )
    assert load_job(job_file, ["output=~/x"]).output == str(Path.home() / "x")
    assert load_job(job_file, ["output=./~/x"]).output == str(tmp_path / "~" / "x")
    assert load_job(job_file, ["output=~nobody-here/x"]).output == str(tmp_path / "~nobody-here" / "x")
    with pytest.raises(RequestError, match="output: None should be a valid string"):
        load_job(job_file, ["output=null"])


@pytest.mark.parametrize("value", ["007", "1_000", "2026-01-01", "yes", "1.50"])
def test_a_name_that_yaml_takes_for_something_else_is_refused(job_file, value):
    """YAML reads 007 as 7: the file asks for quotes rather than to look for another folder."""
    job_file.write_text(job_file.read_text().replace("output: runs", f"output: {value}"))
    with pytest.raises(RequestError, match=r"job\.yaml: output: YAML takes this name for .*; put it in quotes"):
        load_job(job_file)
    job_file.write_text(job_file.read_text().replace(f"output: {value}", f"output: '{value}'"))
    assert load_job(job_file).output == str(job_file.parent / value)


def test_a_mistake_in_a_mapping_does_not_repeat_it(job_file):
    """The key stands once, without all that is under it."""
    for override, says in (
        ("storage={anonymous: true, profile: a}", "storage: anonymous: true uses no credentials"),
        ("storage={anonymous: true, requester_pays: true}", "storage: requester_pays needs credentials"),
        ("model.options={img_size: 3, depth: 2}", "model.options: ['img_size'] follow from"),
        ("name={a: 1}", "name: should be a valid string"),
    ):
        with pytest.raises(RequestError) as error:
            load_job(job_file, [override])
        assert f": {says}" in str(error.value)
        assert "{" not in str(error.value)


def test_storage_has_one_identity():
    """Without credentials there is no profile, and nobody to pay; --storage says what `storage` of a job says."""
    assert storage_of(["anonymous=true", "region=r"]) == Storage(anonymous=True, region="r")
    assert storage_of(["endpoint_url=http://a", "requester_pays=true"]).requester_pays
    assert storage_of([]) == Storage()
    for other in ("profile=p", "requester_pays=true"):
        with pytest.raises(RequestError, match=r"--storage: .*anonymous"):
            storage_of(["anonymous=true", other])
    with pytest.raises(RequestError, match="--storage: anonymus: unknown key; did you mean anonymous"):
        storage_of(["anonymus=true"])
    with pytest.raises(RequestError, match=r"--storage anonymous: expected .* such as anonymous=true"):
        storage_of(["anonymous"])
