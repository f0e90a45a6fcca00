"""Shards are taken over from runs of equal votes identity alone; what differs is computed."""

import json
import shutil
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.identity import run_id_of
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.driver import certify_all
from smoothcert.pipeline.certify.options import Options
from smoothcert.pipeline.certify.plan import Plan, make_plan
from smoothcert.pipeline.certify.sources import sources_of
from smoothcert.pipeline.verify.check import verify
from smoothcert.workers.certifier import Certifier
from smoothcert.workers.runs.adoption import Source
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import METADATA_KEY
from tests.helpers import jobs
from tests.helpers.finished_runs import edit_json, renew_hash
from tests.helpers.tars import tar_of, write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With three tars of five images."""
    jobs.write_shards(tmp_path)
    return tmp_path


def plan_of(folder: Path, *overrides: str, **changes: object) -> Plan:
    return make_plan(load_job(jobs.write_job(folder, **changes), overrides))


def published(plan: Plan, *indices: int, created: str = "2026-01-01T00:00:00+00:00") -> Run:
    """Begin a run, and give it files of votes, empty ones, for its shards, or for some."""
    begin(plan)
    url = Path(plan.run.url)
    (url / "votes").mkdir()
    for task in plan.tasks:
        if not indices or task.index in indices:
            (url / task.file_name).touch()
    edit_json(url / "run.json", lambda record: record.update(created=created))
    return plan.run


def found_by(plan: Plan, *, across: bool = False) -> dict[int, list[tuple[str, str]]]:
    """The run and the file of each source, by the index of the shard."""
    found = sources_of(plan.run, plan.tasks, across=across)
    for source in chain.from_iterable(found.values()):
        assert source.run_url == f"{Path(plan.run.url).parent}/{source.run_id}"
    return {index: [(source.run_id, source.file) for source in sources] for index, sources in found.items()}


def offered(other: Run, *indices: int) -> dict[int, list[tuple[str, str]]]:
    """What `found_by` says if another run offers its files of these shards of `jobs.write_shards`."""
    return {index: [(other.run_id, f"votes/{index:05d}-{index:02d}.parquet")] for index in indices}


def test_runs_of_the_same_votes_on_other_tars_are_sources(folder: Path) -> None:
    """A shard more, one less in front, and another folder: name and size of the tar count."""
    other = published(plan_of(folder))
    write_tar(folder / "tars", tar_of(jobs.samples(50, 9)), "03.tar")
    plan = plan_of(folder)
    assert plan.run.run_id != other.run_id
    assert found_by(plan) == offered(other, 0, 1, 2)
    assert plan.sources == sources_of(plan.run, plan.tasks, across=False)  # so actors get them
    shutil.copytree(folder / "tars", folder / "moved")
    (folder / "moved" / "00.tar").unlink()
    shifted = {index: [(other.run_id, f"votes/{index + 1:05d}-{index + 1:02d}.parquet")] for index in range(2)}
    assert found_by(plan_of(folder, f"images.shards={folder}/moved")) == shifted


def test_another_version_of_the_images_is_a_source(folder: Path) -> None:
    """It tells apart data of equal names and sizes; the hash of the tar does that, too."""
    plain = published(plan_of(folder))
    assert found_by(plan_of(folder, "images.version=2")) == offered(plain, 0, 1, 2)


@pytest.mark.parametrize(
    ("limits", "same"),
    [((7, 6), (0,)), ((7, 9), (0,)), ((12, 14), (0, 1)), ((10, 12), (0, 1)), ((None, 10), ()), ((5, 10), (0,))],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_the_limit_of_the_shard_counts(
    folder: Path, limits: tuple[int | None, int | None], same: tuple[int, ...], swapped: bool
) -> None:
    """Two limits of a job may be the same for a shard: 7 and 6 of five images each are 5 and 2, 5 and 1."""
    first, second = reversed(limits) if swapped else limits
    other = published(plan_of(folder, f"images.limit={first or 'null'}"))
    assert found_by(plan_of(folder, f"images.limit={second or 'null'}")) == offered(other, *same)


OTHER_VOTES = [
    "model.checkpoint=other.pt",
    "model.dtype=bfloat16",
    "model.masked_tokens=keep",
    "preprocess.std=[0.5, 0.5, 0.5]",
    "preprocess.orient=true",
    "preprocess.decoder=nvjpeg",
    "ablation.size=3",
    "ablation.kind=row",
    "ablation.stride=2",
    "clean=false",
    "images.label=null",
    "images.image=[png]",
    "images.first_label=1",
    "images.label_names=[a, b, c]",
]


@pytest.mark.parametrize("override", OTHER_VOTES)
def test_other_votes_or_rows_are_no_source(folder: Path, override: str) -> None:
    """In either direction."""
    jobs.write_weights(folder / "other.pt", fill=0.1)
    override = override.replace("other.pt", str(folder / "other.pt"))
    published(plan_of(folder, override))
    plan = plan_of(folder)
    assert found_by(plan) == found_by(plan, across=True) == {}
    published(plan)
    (other,) = [run for run in (folder / "runs").iterdir() if run.name != plan.run.run_id]
    shutil.rmtree(other)
    assert found_by(plan_of(folder, override)) == {}


def test_a_tar_of_another_name_or_size_has_no_source(folder: Path) -> None:
    """A repaired tar, and one that was renamed."""
    other = published(plan_of(folder))
    write_tar(folder / "tars", tar_of(jobs.samples(0, 5), padded=False), "00.tar")
    (folder / "tars" / "01.tar").rename(folder / "tars" / "11.tar")
    assert found_by(plan_of(folder)) == {1: [(other.run_id, "votes/00002-02.parquet")]}


def test_the_youngest_run_comes_first(folder: Path) -> None:
    """By the time in run.json, whatever the run's id; a run without a time is the oldest. The three youngest count."""
    times = ["2026-03-01T00:00:00+00:00", "2025-01-01T00:00:00+00:00", "2026-02-28T23:59:59+00:00"]
    runs = [
        published(plan_of(folder, f"images.version={version}"), created=created)
        for version, created in enumerate(times)
    ]
    undated = published(plan_of(folder, "images.version=9"), 1, 2)
    edit_json(Path(undated.url) / "run.json", lambda record: record.pop("created"))
    found = found_by(plan_of(folder))
    young, old, middle = (run.run_id for run in runs)
    assert [run_id for run_id, _ in found[0]] == [young, middle, old]
    assert [run_id for run_id, _ in found[1]] == [young, middle, old]
    Path(runs[1].url, runs[1].tasks[2].file_name).unlink()
    assert [run_id for run_id, _ in found_by(plan_of(folder))[2]] == [young, middle, undated.run_id]


def test_only_published_files_are_offered(folder: Path) -> None:
    """A run may be unfinished."""
    other = published(plan_of(folder), 1)
    assert found_by(plan_of(folder, "images.version=2")) == offered(other, 1)
    shutil.rmtree(Path(other.url) / "votes")
    assert found_by(plan_of(folder, "images.version=2")) == {}


def test_a_run_is_no_source_of_its_own(folder: Path) -> None:
    """Nor is a copy of it, or of another run, under another name: a file says from which run it comes by its id."""
    plan = plan_of(folder)
    published(plan, 0)
    begun = plan_of(folder)
    assert [task.index for task in begun.todo] == [1, 2]
    shutil.copytree(plan.run.url, folder / "runs" / "copy")
    assert found_by(begun) == begun.sources == {}
    other = plan_of(folder, "images.version=2")
    assert list(found_by(other)) == [0]
    shutil.rmtree(plan.run.url)
    assert found_by(other) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", {"identity": 5}, {"identity": {"images": 5}}, {"identity": {}}, {"shards": None}],
    ids=str,
)
def test_a_damaged_run_is_passed_over(folder: Path, content: bytes | dict[str, Any]) -> None:
    """It lies beside others, and may be anybody's."""
    damaged, sound = (published(plan_of(folder, f"images.version={version}")) for version in (1, 2))
    file = Path(damaged.url) / "run.json"
    record = file.read_bytes() if isinstance(content, dict) else b"{}"
    changes = content if isinstance(content, dict) else {}
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(json.loads(record) | changes).encode())
    (folder / "runs" / "a file").write_text("x")
    (folder / "runs" / "a folder").mkdir()
    assert found_by(plan_of(folder)) == offered(sound, 0, 1, 2)


def test_votes_of_other_code_are_a_source_on_request(folder: Path) -> None:
    """Their votes_version is in the identity, so in the run's id."""
    made = published(plan_of(folder))
    record = json.loads((Path(made.url) / "run.json").read_text())
    record["identity"]["votes_version"] = record["votes_version"] = 0
    record["run_id"] = run_id_of(record["identity"])
    older = Path(made.url).rename(folder / "runs" / record["run_id"])
    (older / "run.json").write_text(json.dumps(record))
    plan = plan_of(folder)
    assert found_by(plan) == {}
    assert found_by(plan, across=True) == {
        index: [(older.name, f"votes/{index:05d}-{index:02d}.parquet")] for index in range(3)
    }


def test_nothing_to_do_needs_no_source(folder: Path) -> None:
    """Other runs are not even listed."""
    published(plan_of(folder, "images.version=2"))
    plan = plan_of(folder)
    assert sources_of(plan.run, [], across=True) == {}
    assert sources_of(plan.run, plan.tasks[1:2], across=False) == {
        1: [Source(other.name, str(other), "votes/00001-01.parquet") for other in (folder / "runs").iterdir()]
    }


class Certified:
    """What `certify --json` says, and of which shards votes were computed, with the number of images."""

    def __init__(self, code: int, result: dict[str, Any], printed: str, computed: Counter[str]) -> None:
        self.code, self.result, self.printed, self.computed = code, result, printed, computed

    @property
    def run(self) -> Path:
        return Path(self.result["path"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        files = sorted((self.run / "votes").iterdir())
        return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def certified(folder: Path, in_process: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Certifies the small job; the votes of actors are counted, those of the canary are not."""
    computed = Counter[str]()
    undisturbed = Certifier._add_votes

    def counted(self, task, batch, run_id, voted):
        computed[task.shard.name] += len(batch.samples)
        undisturbed(self, task, batch, run_id, voted)

    monkeypatch.setattr(Certifier, "_add_votes", counted)

    def certify(*overrides: str, adopt_across: bool = False) -> Certified:
        computed.clear()
        job = load_job(jobs.write_job(folder), overrides)
        code = certify_all(job, Options(adopt_across=adopt_across), json_to=sys.stdout)
        printed = capsys.readouterr()
        return Certified(code, json.loads(printed.out.splitlines()[-1]), printed.err, Counter(computed))

    return certify


def test_of_a_grown_data_set_only_the_new_shards_are_computed(certified, folder: Path) -> None:
    """The rows are those of a run from nothing; the diary says where shards came from."""
    first = certified()
    assert first.computed == {f"{shard:02d}.tar": 5 for shard in range(3)}
    assert (first.result["computed"], first.result["adopted_from"]) == (3, {})
    write_tar(folder / "tars", tar_of(jobs.samples(20, 4)), "000.tar")  # comes first
    write_tar(folder / "tars", tar_of(jobs.samples(30, 3)), "03.tar")
    second = certified()
    assert second.computed == {"000.tar": 4, "03.tar": 3}
    old = first.run.name
    assert (second.code, second.result["computed"], second.result["adopted_from"]) == (0, 2, {old: 3})
    assert json.loads((second.run / "_SUCCESS").read_text())["adopted_from"] == {old: 3}
    (diary,) = (second.run / "drivers").iterdir()
    *attempts, driver = map(json.loads, diary.read_text().splitlines())
    assert driver["images"] == 7
    assert sorted((attempt["shard"], attempt["outcome"], attempt.get("adopted_from")) for attempt in attempts) == [
        ("00.tar", "adopted", old),
        ("000.tar", "published", None),
        ("01.tar", "adopted", old),
        ("02.tar", "adopted", old),
        ("03.tar", "published", None),
    ]
    alone = certified(f"output={folder}/alone")
    assert alone.computed.total() == 22
    assert second.rows == alone.rows
    assert verify(str(second.run), replay=22, seed=1).problems == ()
    assert certified().computed == {}  # it is finished


@pytest.mark.parametrize("same_size", [False, True], ids=["other size", "same size"])
def test_of_twenty_shards_the_repaired_one_is_computed(certified, folder: Path, same_size: bool) -> None:
    """And said so, in the lines of the run and in the JSON. With equal sizes, images.version tells that they differ."""
    jobs.write_shards(folder, shards=20, images=2)
    first = certified()
    tar = folder / "tars" / "07.tar"
    before = tar.stat().st_size
    write_tar(folder / "tars", tar_of(jobs.samples(100, 2), padded=same_size), tar.name)
    assert (tar.stat().st_size == before) == same_size
    overrides = ["images.version=repaired"] if same_size else []
    second = certified(*overrides)
    assert second.computed == {"07.tar": 2}
    assert (second.code, second.result["complete"]) == (0, True)
    assert (second.result["computed"], second.result["adopted_from"]) == (1, {first.run.name: 19})
    assert json.loads((second.run / "_SUCCESS").read_text())["adopted_from"] == {first.run.name: 19}
    assert f"notice: 19 shards of 20 taken over from run {first.run.name}: the tars are the same" in second.printed
    lines = [line for line in second.printed.splitlines() if line.startswith("[")]
    assert sum(line.endswith(f".tar: 2 images, taken over from run {first.run.name}") for line in lines) == 19
    assert sum(": 2 images, 0 errors, " in line and "07.tar" in line for line in lines) == 1
    assert second.rows == certified(f"output={folder}/alone", *overrides).rows
    report = verify(str(second.run), replay=10, seed=1)
    assert report.problems == ()
    assert verify(str(first.run)).problems == ()


def test_a_tar_that_changed_unseen_is_computed(certified, folder: Path) -> None:
    """Equal name and size make it a candidate; its hash does not fit."""
    first = certified()
    write_tar(folder / "tars", tar_of(jobs.samples(40, 5)), "01.tar")
    second = certified("images.version=2")
    assert second.computed == {"01.tar": 5}
    assert second.result["adopted_from"] == {first.run.name: 2}
    assert verify(str(second.run), replay=15, seed=1).problems == ()


def test_a_damaged_source_is_computed_instead(certified, folder: Path) -> None:
    """The run of the source stays as it is."""
    first = certified()
    file = first.run / "votes" / "00001-01.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    second = certified("images.version=2")
    assert second.computed == {"01.tar": 5}
    assert (second.code, second.result["adopted_from"]) == (0, {first.run.name: 2})
    assert verify(str(second.run)).problems == ()
    assert file.read_bytes() == data


def test_an_older_run_helps_where_the_younger_is_damaged(certified, folder: Path) -> None:
    """Sources are tried in turn."""
    first = certified()
    second = certified("images.version=2")
    assert second.result["adopted_from"] == {first.run.name: 3}
    edit_json(first.run / "run.json", lambda record: record.update(created="2020-01-01T00:00:00+00:00"))
    (second.run / "votes" / "00002-02.parquet").write_bytes(b"damaged")
    third = certified("images.version=3")
    assert third.computed == {}
    assert third.result["adopted_from"] == {first.run.name: 1, second.run.name: 2}
    assert third.rows == first.rows
    assert verify(str(third.run)).problems == ()


def test_votes_of_another_device_are_taken_over_on_request(certified, folder: Path) -> None:
    """Two kinds of devices may disagree where margins are tiny, so nobody mixes them unasked."""
    first = certified()
    file = first.run / "votes" / "00000-00.parquet"
    table = pq.read_table(file)
    metadata = json.loads(table.schema.metadata[METADATA_KEY]) | {"device": "NVIDIA H200"}
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)}), file)
    renew_hash(file)
    shutil.copytree(folder / "runs", folder / "across")
    assert certified("images.version=2").computed == {"00.tar": 5}
    taken = certified("images.version=2", f"output={folder}/across", adopt_across=True)
    assert taken.computed == {}
    assert taken.result["adopted_from"] == {first.run.name: 3}
    assert "notice: mixed versions or devices" in taken.printed
    assert verify(str(taken.run), replay=15, seed=1).problems == ()
