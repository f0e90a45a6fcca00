"""An entry of a suite is the job that its keys would be alone; each mistake is one line with file, entry and key."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoothcert.manifests.ablation import WindowAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.gates import Gates, load_gates
from smoothcert.manifests.job import Job, load_job
from smoothcert.manifests.suite import SHARED, Suite, SuiteFile, is_suite, load_suite
from smoothcert.manifests.yaml_file import Part
from smoothcert.pipeline.compare.reasons import Reason
from tests.helpers.house import HOUSE

EXAMPLE = """
name: nightly CIFAR-10
images: {shards: tars/test.tar, label: json:label}
preprocess: {resize: null, crop: 32, mean: [0.5, 0.5, 0.5]}
model: {architecture: vit_tiny_patch16_224, classes: 10, options: {patch_size: 4, depth: 6}}
ablation: {kind: column, size: 4}
patches: [2, 5]
output: runs
gates: gates.yaml
execution: {actors: 2}
entries:
  column4: {model: {checkpoint: weights/a.safetensors}}
  stride-2:
    model: {checkpoint: weights/a.safetensors, dtype: bfloat16}
    ablation: {stride: 2}
    gates: null
  resnet_18:
    name: a ResNet
    model: {architecture: resnet18, checkpoint: weights/b.safetensors, options: {}}
    preprocess: {upsample: 2}
    patches: [3]
    gates: {gates: [{metric: smoothed, min: 0.6}]}
"""
GATES = "gates:\n  - {metric: certified, patch: 5, max_lost: 5}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The example, with its gates beside it."""
    (tmp_path / "gates.yaml").write_text(GATES)
    (tmp_path / "suite.yaml").write_text(EXAMPLE)
    return tmp_path / "suite.yaml"


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def changed(file: Path, **changes: Any) -> Path:
    """The example with other keys at its top; None removes one."""
    content = yaml.safe_load(EXAMPLE) | changes
    return write(file, {key: value for key, value in content.items() if value is not None})


def lines_of(file: Path, *overrides: str) -> list[str]:
    """The mistakes, without the name of the file, with which each line begins."""
    with pytest.raises(RequestError) as error:
        load_suite(file, overrides)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


def test_an_entry_is_a_job(file: Path) -> None:
    """With the keys of the top, and its own over them; written out as a job file, it is the same job."""
    suite = load_suite(file)
    assert list(suite.jobs) == ["column4", "stride-2", "resnet_18"]
    first, second, third = suite.jobs.values()
    assert (first.name, second.name, third.name) == (
        "nightly CIFAR-10: column4",
        "nightly CIFAR-10: stride-2",
        "a ResNet",
    )
    assert (second.ablation.kind, second.ablation.size, second.ablation.stride) == ("column", 4, 2)
    assert second.model.options == {"patch_size": 4, "depth": 6}
    assert (third.model.options, third.preprocess.crop, third.preprocess.upsample) == ({}, 32, 2)
    assert (first.patches, third.patches) == ((2, 5), (3,))
    assert {job.images.shards for job in suite.jobs.values()} == {str(file.parent / "tars" / "test.tar")}
    assert {job.output for job in suite.jobs.values()} == {str(file.parent / "runs")}
    assert first.model.checkpoint == str(file.parent / "weights" / "a.safetensors")
    for job in suite.jobs.values():
        assert load_job(write(file.parent / "job.yaml", job.model_dump(mode="json"))) == job


def test_gates_baseline_and_allowed_differences(file: Path) -> None:
    """An entry has the gates of the suite, its own, or none."""
    suite = load_suite(file)
    assert suite.gates == {
        "column4": load_gates(file.parent / "gates.yaml"),
        "resnet_18": Gates.model_validate({"gates": [{"metric": "smoothed", "min": 0.6}]}),
    }
    assert (suite.name, suite.baseline, suite.allow) == ("nightly CIFAR-10", "accepted", ("images",))
    other = load_suite(changed(file, gates=None, baseline="previous", allow=[]))
    assert (other.baseline, other.allow, list(other.gates)) == ("previous", (), ["resnet_18"])


def test_defaults_of_the_suite_are_those_of_its_file() -> None:
    """They are written twice; a comparison can allow whatever it may refuse, except an unfinished run."""
    assert Suite("s", {}) == Suite("s", {}, {}, SuiteFile(name="s", entries={}).baseline, ("images",))
    every = [reason.value for reason in Reason if reason != Reason.unfinished]
    assert SuiteFile.model_validate({"name": "s", "entries": {}, "allow": every}).allow == tuple(every)


def test_set_changes_all_entries_or_one(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its paths start from the current folder; an entry's own key wins over one of the top."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "own.yaml").write_text(GATES.replace("5}", "0}"))
    suite = load_suite(
        file,
        [
            "images.limit=10",
            "execution.actors=1",
            "output=out",
            "model.dtype=float16",
            "entries.stride-2.ablation.stride=4",
            "entries.column4.model.checkpoint=[b].pt",
            "entries.column4.gates=own.yaml",
            "entries.new={model: {checkpoint: c.pt}, ablation: {size: 5}}",
        ],
    )
    assert list(suite.jobs) == ["column4", "stride-2", "resnet_18", "new"]
    for job in suite.jobs.values():
        assert (job.images.limit, job.execution.actors, job.output) == (10, 1, str(tmp_path / "here" / "out"))
    assert [job.model.dtype for job in suite.jobs.values()] == ["float16", "bfloat16", "float16", "float16"]
    assert suite.jobs["stride-2"].ablation.stride == 4
    assert suite.jobs["column4"].model.checkpoint == str(tmp_path / "here" / "[b].pt")
    assert suite.gates["column4"].gates[0].max_lost == 0
    assert suite.jobs["new"].model.checkpoint == str(tmp_path / "here" / "c.pt")
    assert suite.jobs["new"].ablation.size == 5


JOB = {
    "name": "lone",
    "images": {"shards": "tars", "label": None},
    "model": {
        "architecture": "vit_tiny_patch16_224",
        "checkpoint": "weights.pt",
        "classes": 7,
        "options": {"patch_size": 4, "depth": 2},
        "ignore": ["head.*"],
        "dtype": "float16",
    },
    "preprocess": {"resize": 40, "crop": 32, "mean": [0.1, 0.2, 0.3], "orient": True},
    "ablation": {"kind": "block", "size": 5, "stride": 3, "edges": "inside"},
    "clean": False,
    "patches": [4, 2],
    "output": "runs",
    "max_error_share": 0.5,
    "storage": {"region": "r"},
}
DECOYS = {
    "model": {
        "architecture": "resnet18",
        "checkpoint": "no.pt",
        "classes": 3,
        "options": {"depth": 9, "in_chans": 1},
        "ignore": "a",
        "dtype": "bfloat16",
    },
    "preprocess": {"resize": 3, "crop": 999, "mean": 0.5, "orient": False},
    "ablation": {"kind": "row", "size": 1000, "stride": 9, "edges": "wrap"},
    "clean": True,
    "patches": [9, 8, 7],
    "max_error_share": 0.1,
}
"""Other values of the keys, with which the top of the file may be no job at all."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_an_entry_equals_the_lone_job(data: st.DataObject, tmp_path: Path) -> None:
    """Wherever its keys stand: at the top, in the entry, or in the entry over another value at the top."""
    where = st.sampled_from(["top", "entry", "both"])
    top: dict[str, Any] = {"name": "s"}
    entry: dict[str, Any] = {"name": "lone"}
    for key, value in JOB.items():
        if key in SHARED:
            top[key] = value
        elif key in ("model", "preprocess", "ablation"):
            assert isinstance(value, dict)
            for inner, one in value.items():
                place = data.draw(where, label=f"{key}.{inner}")
                if place != "entry":
                    top.setdefault(key, {})[inner] = one if place == "top" else DECOYS[key][inner]
                if place != "top":
                    entry.setdefault(key, {})[inner] = one
        elif key != "name":
            place = data.draw(where, label=key)
            if place != "entry":
                top[key] = value if place == "top" else DECOYS[key]
            if place != "top":
                entry[key] = value
    other = {key: value for key, value in JOB.items() if key not in SHARED}
    suite = load_suite(write(tmp_path / "suite.yaml", top | {"entries": {"a": entry, "b": other}}))
    assert suite.jobs["a"] == suite.jobs["b"] == load_job(write(tmp_path / "job.yaml", JOB))


def _keys(model: type[Part]) -> set[str]:
    return {found.alias or name for name, found in model.model_fields.items()}


def test_the_property_covers_every_place() -> None:
    """Each key of a job that an entry may have is in both tables."""
    assert {*JOB, "execution"} == _keys(Job)
    assert DECOYS.keys() == _keys(Job) - {*SHARED, "name"}
    assert all(DECOYS[key].keys() == JOB[key].keys() for key in ("model", "preprocess", "ablation"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("entries.resnet_18.model.classes=1", "entries.resnet_18: model.classes: 1 should be greater than or equal"),
        ("entries.column4.modle=1", "entries.column4: modle: unknown key; did you mean model?"),
        ("entries.column4.stride=1", "entries.column4: stride: unknown key; did you mean ablation.stride?"),
        ("entries.column4.gate=x", "entries.column4: gate: unknown key; did you mean gates?"),
        ("entries.column4.images.limit=1", "entries.column4: images: is the same for all entries; move it to the top"),
        ("entries.column4.baseline=previous", "entries.column4: baseline: is the same for all entries; move it"),
        ("entries.column4.ablation.size=40", "entries.column4: ablation.size: 40 too large: the image is 32 x 32"),
        ("entries.column4.model=x", "entries.column4: model: 'x' should be a valid dictionary"),
        ("entries.column4=x", "entries.column4: 'x' is no job; write its keys, such as `column4: {model: {...}}`"),
        ("entries.a b={}", "entries.a b: a name has only letters, digits, - and _; change it"),
        ("entries.column4.gates={gates: []}", "entries.column4: gates: "),
        ("entries.column4.gates.gates=[]", "entries.column4: gates: gates: [] is empty; name at least one gate"),
        ("entries.column4={model: {checkpoint: a}, gates: {}}", "entries.column4: gates: gates: missing; add it"),
        ("entries.new.model.classes=3", "entries.new: model.checkpoint: missing; add it (File with the weights"),
        # What entries share is said once.
        ("images.limit=0", "images.limit: 0 should be greater than or equal to 1"),
        ("model.classes=1", "model.classes: 1 should be greater than or equal to 2"),
        ("model.dtype=int4", "model.dtype: 'int4' should be 'float32', 'bfloat16', 'float16' or 'int8'"),
        ("preprocess.crop=3", "ablation.size: 4 too large: the image is 3 x 3"),
        ("patches=[2, 33]", "entries.column4, entries.stride-2: patches: 33 too large: the image is 32 x 32"),
        ("max_error_share=2", "max_error_share: 2 should be less than or equal to 1"),
        ("enries=1", "enries: unknown key; did you mean entries?"),
        ("limit=1", "limit: unknown key; did you mean images.limit?"),
        ("ablation.strid=1", "ablation.strid: unknown key; did you mean ablation.stride?"),
        ("baseline=last", "baseline: 'last' should be 'accepted' or 'previous'"),
        ("allow=[image]", "allow: 'image' should be 'images', 'labels', "),
        ("allow=[unfinished]", "allow: 'unfinished' should be 'images', 'labels', "),
        ("gates=none.yaml", "gates: "),
        ("gates.gates=[{metric: smoothed}]", "gates: gates: sets no limit"),
        ("gates=[]", "gates: "),
    ],
)
def test_a_mistake_is_one_line_with_entry_and_key(file: Path, override: str, says: str) -> None:
    """In what all entries share, without an entry."""
    lines = lines_of(file, override)
    assert len(lines) == 1, lines
    assert lines[0].startswith(says), lines


def test_all_mistakes_are_shown(file: Path) -> None:
    """Those of the suite, of what the entries share, and of each entry."""
    content = yaml.safe_load(EXAMPLE)
    del content["output"], content["name"]
    content["entries"]["column4"]["clea"] = True
    content["entries"]["stride-2"]["model"]["dtype"] = "int4"
    content["entries"]["resnet_18"]["storage"] = {"region": "r"}
    content["entries"][7] = {}
    assert [line.split(": ")[:2] for line in lines_of(write(file, content), "images.limit=0")] == [
        ["name", "missing; add it (Shown in tables. The job of an entry is called `NAME"],
        ["entries.7", "YAML takes this name for 7; put it in quotes"],
        ["images.limit", "0 should be greater than or equal to 1"],
        ["output", "missing; add it (Folder that holds the runs, or s3://BUCKET/KEY)"],
        ["entries.column4", "clea"],
        ["entries.stride-2", "model.dtype"],
        ["entries.resnet_18", "storage"],
    ]


def test_a_mistake_in_a_gate_file_names_both_files(file: Path) -> None:
    """And the key."""
    (file.parent / "gates.yaml").write_text("gates: [{metric: smoothed, mini: 1}]")
    (line,) = lines_of(file)
    assert line.startswith(f"gates: {file.parent / 'gates.yaml'}: gates.mini: unknown key; did you mean gates.min")


def test_entries_may_share_a_mapping_by_an_alias(file: Path) -> None:
    """--set changes only the entry that it names."""
    file.write_text(EXAMPLE.replace("column4: {model: ", "column4: {model: &weights ") + "  other: {model: *weights}\n")
    jobs = load_suite(file, ["entries.other.model.dtype=float16"]).jobs
    assert [jobs[name].model.dtype for name in ("column4", "other")] == ["float32", "float16"]
    assert jobs["other"].model.checkpoint == jobs["column4"].model.checkpoint


@pytest.mark.parametrize("entries", [None, {}, [], "x"])
def test_a_suite_has_entries(file: Path, entries: Any) -> None:
    """Else there is nothing to do."""
    content = yaml.safe_load(EXAMPLE) | {"entries": entries}
    (line,) = lines_of(write(file, content))
    assert line == "entries: names no job; add one, such as `small: {model: {...}}`"
    with pytest.raises(RequestError, match=r"^--set entries=\{\}: name an entry, such as "):
        load_suite(file, ["entries={}"])


def test_settings_that_follow_are_added_to_each_entry(file: Path) -> None:
    """A mistake in them is one of the entry; other entries are still checked."""

    def complete(content: dict[str, Any]) -> None:
        if content["model"]["checkpoint"].endswith("b.safetensors"):
            raise RequestError("model.checkpoint: cannot be used")
        content["model"] = content["model"] | {"classes": 3}

    with pytest.raises(RequestError) as error:
        load_suite(file, ["entries.stride-2.model.dtype=x"], complete=complete)
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{file}: entries.stride-2: model.dtype: 'x' should be")
    assert second == f"{file}: entries.resnet_18: model.checkpoint: cannot be used"
    jobs = load_suite(file, ["entries.resnet_18.model.checkpoint=c"], complete=complete).jobs
    assert {job.model.classes for job in jobs.values()} == {3}


def test_a_file_with_entries_is_a_suite(file: Path, job_file: Path) -> None:
    """Any other is a job."""
    assert is_suite(file)
    assert not is_suite(job_file)
    with pytest.raises(RequestError, match=r"none\.yaml: cannot read the job file"):
        is_suite(file.parent / "none.yaml")


def test_the_example_of_the_docs_is_a_suite(tmp_path: Path) -> None:
    """As docs/models.md shows it."""
    section = (HOUSE / "docs" / "models.md").read_text().partition("## Several jobs in one file: a suite")[2]
    text = section.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "gates.yaml").write_text(GATES)
    (tmp_path / "suite.yaml").write_text(text)
    suite = load_suite(tmp_path / "suite.yaml")
    assert list(suite.jobs) == ["vit", "vit-stride-2", "resnet"]
    assert list(suite.gates) == ["vit", "vit-stride-2"]
    assert suite.jobs["vit-stride-2"].ablation == WindowAblation(kind="column", size=4, stride=2)
