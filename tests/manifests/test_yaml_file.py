"""A YAML file with `--set` becomes what it says, names of files are taken literally, and each mistake is one line."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job, load_job


def test_paths_start_from_the_file_and_overrides_from_here(job_file, tmp_path, monkeypatch):
    """A relative path in the file starts from its folder, one in --set from the current directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = load_job(job_file, ["output=out"])
    assert job.images.shards == str(tmp_path / "tars" / "a-{0..1}.tar")
    assert job.output == str(tmp_path / "here" / "out")
    assert "~" not in job.model.checkpoint
    assert load_job(job_file, ["images.shards=s3://b/x.tar"]).images.shards == "s3://b/x.tar"


def test_the_last_override_wins(job_file):
    """--set reaches nested keys, and keys that the file lacks."""
    job = load_job(job_file, ["ablation.stride=4", "ablation.stride=8", "execution.actors=auto", "patches=[23, 32]"])
    assert (job.ablation.stride, job.execution.actors, job.patches) == (8, None, (23, 32))


def test_an_override_replaces_a_whole_mapping(job_file):
    """Its keys are not added to those of the file."""
    assert load_job(job_file, ["model.options={depth: 2}"]).model.options == {"depth": 2}
    assert load_job(job_file, ["model.options={depth: 2}", "model.options={}"]).model.options == {}
    assert load_job(job_file, ["model.options={depth: 2}", "model.options.a.b=3"]).model.options == {
        "depth": 2,
        "a": {"b": 3},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", "comes twice"),
        ("- a\n", "is a mapping"),
        ("name: n\n", "images: missing; add it"),
        ("\x00", "YAML"),
    ],
)
def test_error_names_the_broken_file(tmp_path, text, says):
    """A file that is no job is named, with the reason."""
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=says) as error:
        load_job(path)
    assert all(line.startswith(str(path)) for line in str(error.value).splitlines())
    with pytest.raises(RequestError, match="cannot read"):
        load_job(tmp_path / "absent.yaml")


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
def test_a_name_that_exists_is_taken_literally(job_file, tmp_path, monkeypatch, name, key):
    """If a file has this name, it is not read as YAML, a URL, a name of the hub or a home folder."""
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
def test_a_path_in_an_override_is_plain_text(job_file, tmp_path, monkeypatch, name):
    """A path in --set is not read as YAML, except for quotes, null and lists."""
    monkeypatch.chdir(tmp_path)
    assert load_job(job_file, [f"output={name}"]).output == os.path.normpath(tmp_path / name)


def test_urls_hub_names_lists_and_homes_are_recognised(job_file, tmp_path, monkeypatch):
    """They keep their meaning if no file has their name."""
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
def test_a_path_that_yaml_reads_as_a_number_or_date_is_refused(job_file, value):
    """YAML reads 007 as 7: the error asks for quotes, so that no other folder is taken."""
    job_file.write_text(job_file.read_text().replace("output: runs", f"output: {value}"))
    with pytest.raises(RequestError, match=r"job\.yaml: output: YAML takes this name for .*; put it in quotes"):
        load_job(job_file)
    job_file.write_text(job_file.read_text().replace(f"output: {value}", f"output: '{value}'"))
    assert load_job(job_file).output == str(job_file.parent / value)


def test_error_about_a_mapping_does_not_repeat_the_mapping(job_file):
    """It names the key, without all that is under it."""
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


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("ablation.strid=4", r"ablation\.strid: unknown key; did you mean ablation\.stride\?"),
        ("stride=4", r"stride: unknown key; did you mean ablation\.stride\?"),
        ("ablation.zzz=4", r"ablation\.zzz: unknown key; known here: kind, size, stride, edges, threat"),
        ("nonsense", r"--set nonsense: expected key\.path=value"),
        ("name=[", r"not valid YAML"),
        ("=4", r"--set =4: expected key\.path=value"),
        ("ablation..size=4", r"expected key\.path=value"),
    ],
)
def test_error_says_what_is_wrong_with_an_override(job_file, override, says):
    """One line, with a known key that is near the wrong one."""
    with pytest.raises(RequestError) as error:
        load_job(job_file, [override])
    assert re.search(says, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


def _leaves(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key path of a job that holds no further keys."""
    for name, field in part.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("path", [path for path in _leaves(Job) if "." in path])
def test_a_key_in_the_wrong_place_is_answered_with_the_right_place(job_file, path):
    """A key without its section is unknown; the error shows a key path of that name that exists."""
    name = path.rpartition(".")[2]
    with pytest.raises(RequestError) as error:
        load_job(job_file, [f"{name}=1"])
    (shown,) = re.findall(rf"^\S+: {name}: unknown key; did you mean (\S+)\?$", str(error.value))
    assert shown in [one for one in _leaves(Job) if one.rpartition(".")[2] == name]


def test_a_key_that_comes_twice_is_refused_at_any_depth(job_file):
    """YAML itself would keep the last one without a word."""
    job_file.write_text(job_file.read_text().replace("size: 19", "size: 19, size: 20"))
    with pytest.raises(RequestError, match=r"job\.yaml: not valid YAML: key 'size' comes twice; keep one"):
        load_job(job_file)


def test_all_mistakes_of_a_file_are_shown(job_file):
    """Each is a line with the file's name."""
    with pytest.raises(RequestError) as error:
        load_job(job_file, ["ablation.stride=0", "model.classes=1", "clea=true"])
    lines = str(error.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["model.classes", "ablation.stride", "clea"]
    assert all(line.startswith(f"{job_file}: ") for line in lines)
