"""A file is taken over only if computing would give the same one; whoever reads it learns where its rows come from."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from smoothcert.manifests.errors import ShardError
from smoothcert.manifests.job import load_job
from smoothcert.pipeline.certify.begin import begin
from smoothcert.pipeline.certify.plan import make_plan
from smoothcert.pipeline.verify import checksum
from smoothcert.workers.ablations.kinds import ablations_of
from smoothcert.workers.certificates.families import family_of
from smoothcert.workers.runs import votes_table
from smoothcert.workers.runs.adoption import Adopted, Adoption, Source
from smoothcert.workers.runs.file_hashes import hashes_of
from smoothcert.workers.runs.publication import Published
from smoothcert.workers.runs.shard_task import ShardTask
from smoothcert.workers.runs.votes_table import METADATA_KEY
from tests.helpers import jobs
from tests.helpers.finished_runs import edit_json, file_of, finish_job, renew_hash, rows_of, write
from tests.helpers.tars import tar_of, write_tar

OTHER_RUN = "0123456789abcdef"
OTHER_SHA256 = "0" * 64


@dataclass
class Grown:
    """A finished run of two tars, a begun run of these and a third, and the file that computing gives the latter.

    Attributes:
        old: the finished run.
        adoption: into the new run.
        task: the first shard of the new run.
        source: the file of the old run.
        sha256: of the tar.
        computed: the file of the shard, computed in another output.
    """

    old: Path
    adoption: Adoption
    task: ShardTask
    source: Source
    sha256: str
    computed: Path

    @property
    def file(self) -> Path:
        """Of the source."""
        return self.old / self.source.file

    @property
    def taken_over(self) -> Path:
        """Of the new run."""
        return Path(self.adoption.run_url, self.task.file_name)

    def adopt(self, **changes: Any) -> Adopted | None:
        """Take the source over, by an adoption with other attributes."""
        return replace(self.adoption, **changes).adopt(self.task, self.source, self.sha256)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("grown")
    (folder / "tars").mkdir()
    besides = [("._x.png", b"x"), ("y.bmp", b"x"), ("y.cls", b"1"), ("z.png", b"no image"), ("z.cls", b"0")]
    write_tar(folder / "tars", tar_of([*jobs.samples(0, 5), *besides]), "00.tar")
    write_tar(folder / "tars", tar_of(jobs.samples(5, 2)), "01.tar")
    job = jobs.write_job(folder)
    old = finish_job(load_job(job))
    write_tar(folder / "tars", tar_of(jobs.samples(7, 2)), "02.tar")
    (folder / "tars" / "00.tar").touch()  # other fingerprint, equal content
    plan = make_plan(load_job(job))
    begin(plan)
    alone = make_plan(load_job(job, [f"output={folder}/alone"]))
    begin(alone)
    task = alone.tasks[0]
    list(alone.certifier(threads=1).certify(task))
    computed = Path(alone.run.url, task.file_name)
    adoption = Adoption(
        plan.run.run_id,
        plan.run.url,
        plan.run.store,
        described(computed),
        votes_table.schema(ablations_of(plan.job.ablation, 16, 16).num_ablations, family_of(plan.job.ablation)),
    )
    source = Source(old.name, str(old), "votes/00000-00.parquet")
    sha256 = hashlib.sha256((folder / "tars" / "00.tar").read_bytes()).hexdigest()
    return Grown(old, adoption, plan.tasks[0], source, sha256, computed)


@pytest.fixture
def grown(runs: Grown, tmp_path: Path) -> Grown:
    """A copy of the runs, to be changed."""
    shutil.copytree(runs.old.parent, tmp_path / "runs")
    return _moved(runs, tmp_path / "runs")


def _moved(runs: Grown, folder: Path) -> Grown:
    old, new = folder / runs.old.name, folder / runs.adoption.run_id
    return replace(
        runs,
        old=old,
        source=replace(runs.source, run_url=str(old)),
        adoption=replace(runs.adoption, run_url=str(new)),
    )


def described(file: Path) -> dict[str, Any]:
    """The metadata of a file."""
    metadata: dict[str, Any] = json.loads(pq.read_schema(file).metadata[METADATA_KEY])
    return metadata


def rewrite(file: Path, *, renew: bool = True, **metadata: Any) -> None:
    """Other metadata; the hash in _SUCCESS fits if `renew`."""
    table = pq.read_table(file)
    described_now = json.dumps(described(file) | metadata)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: described_now}), file, write_page_checksum=True)
    if renew:
        renew_hash(file)


def test_the_file_is_the_one_that_computing_gives(grown: Grown) -> None:
    """All columns, their types and their checksum; the metadata names the new run, the tar of now and the source."""
    adopted = grown.adopt()
    assert adopted == Adopted(
        grown.old.name, {"ok": 5, "decode_error": 1}, Published(True, hashes_of(grown.taken_over.read_bytes()))
    )
    mine, computed = pq.read_table(grown.taken_over), pq.read_table(grown.computed)
    assert mine.schema.equals(computed.schema)
    assert mine.to_pylist() == computed.to_pylist()
    found, expected = described(grown.taken_over), described(grown.computed)
    assert found["columns_sha256"] == expected["columns_sha256"] == checksum.columns_sha256(mine)
    origin = {
        "run_id": grown.old.name,
        "file": "votes/00000-00.parquet",
        "sha256": hashlib.sha256(grown.file.read_bytes()).hexdigest(),
    }
    assert found == expected | {"adopted_from": origin, "seconds": described(grown.file)["seconds"]}
    assert found["shard"]["fingerprint"] != described(grown.file)["shard"]["fingerprint"]
    assert found["shard"]["fingerprint"] == grown.task.shard.fingerprint
    assert (found["system_members"], found["samples_without_image"]) == (1, 1)


def test_a_source_of_an_unfinished_run_is_taken_over(grown: Grown) -> None:
    """It has no _SUCCESS with hashes; page and column checksums must do."""
    (grown.old / "_SUCCESS").unlink()
    assert grown.adopt() is not None
    assert pq.read_table(grown.taken_over).equals(pq.read_table(grown.computed))


def test_a_source_may_be_taken_over_itself(grown: Grown) -> None:
    """The origin is the file that was read, not the one where the votes were computed."""
    assert grown.adopt() is not None
    middle, third = grown.taken_over, grown.old.parent / "third"
    source = Source(grown.adoption.run_id, grown.adoption.run_url, grown.task.file_name)
    adoption = replace(grown.adoption, run_id=OTHER_RUN, run_url=str(third))
    adopted = adoption.adopt(grown.task, source, grown.sha256)
    assert adopted is not None and adopted.run_id == grown.adoption.run_id
    (found,) = (third / "votes").iterdir()
    assert pq.read_table(found).equals(pq.read_table(grown.computed))
    sha256 = hashlib.sha256(middle.read_bytes()).hexdigest()
    assert described(found)["adopted_from"] == {
        "run_id": grown.adoption.run_id,
        "file": "votes/00000-00.parquet",
        "sha256": sha256,
    }


Change = Callable[[Grown], Any]


def with_rows(grown: Grown, **changes: Any) -> None:
    """The first row says something else; the file has no wrong checksum."""
    rows = rows_of(grown.file)
    rows[0] |= changes
    write(grown.file, rows, renew=True)


def with_column(grown: Grown, schema: Callable[[pa.Schema], pa.Schema]) -> None:
    """Other columns; checksums and hash fit."""
    found = pq.read_schema(grown.file)
    write(grown.file, rows_of(grown.file), renew=True, schema=schema(found))


UNFIT: dict[str, Change] = {
    "another tar": lambda grown: rewrite(grown.file, shard_sha256=OTHER_SHA256),
    "no hash of the tar": lambda grown: rewrite(grown.file, shard_sha256=None),
    "another run's file": lambda grown: rewrite(grown.file, run_id=OTHER_RUN),
    "another checksum of the columns": lambda grown: rewrite(grown.file, columns_sha256=OTHER_SHA256),
    "no checksum of the columns": lambda grown: rewrite(grown.file, columns_sha256=None),
    "another file than in _SUCCESS": lambda grown: rewrite(grown.file, renew=False, seconds=0.0),
    "not in _SUCCESS": lambda grown: edit_json(grown.old / "_SUCCESS", lambda success: success["files"].clear()),
    "_SUCCESS is damaged": lambda grown: (grown.old / "_SUCCESS").write_text("{"),
    "run.json is damaged": lambda grown: (grown.old / "run.json").write_text("{"),
    "the file is gone": lambda grown: grown.file.unlink(),
    "the file is empty": lambda grown: grown.file.write_bytes(b""),
    "no metadata": lambda grown: pq.write_table(pq.read_table(grown.file).replace_schema_metadata(None), grown.file),
    "metadata of another type": lambda grown: rewrite(grown.file, versions=3),
    "a column less": lambda grown: with_column(grown, lambda schema: schema.remove(len(schema) - 1)),
    "columns in another order": lambda grown: with_column(grown, lambda schema: pa.schema(list(schema)[::-1])),
    "a column of another type": lambda grown: with_column(
        grown, lambda schema: schema.set(schema.get_field_index("label"), pa.field("label", pa.int64()))
    ),
    "a column that may be null": lambda grown: with_column(
        grown, lambda schema: schema.set(0, pa.field("key", pa.string()))
    ),
}


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_is_not_taken_over(grown: Grown, change: Change, across: bool) -> None:
    """Nothing is published, so the shard is computed; --adopt-across is no excuse."""
    change(grown)
    assert grown.adopt(across=across) is None
    assert not grown.taken_over.exists()


def test_a_tar_that_changed_is_not_that_of_the_source(grown: Grown) -> None:
    """The hash of the tar that was fetched counts, not name and size."""
    assert grown.adoption.adopt(grown.task, grown.source, OTHER_SHA256) is None


OTHERS: dict[str, Change] = {
    "device": lambda grown: rewrite(grown.file, device="NVIDIA H200"),
    "decoder": lambda grown: rewrite(grown.file, decoder="Pillow 1"),
    "version of torch": lambda grown: rewrite(
        grown.file, versions=described(grown.file)["versions"] | {"torch": "1.0"}
    ),
    "no versions": lambda grown: rewrite(grown.file, versions=None),
    "votes_version": lambda grown: rewrite(grown.file, votes_version=0),
    "no votes_version": lambda grown: rewrite(grown.file, votes_version=None),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_other_versions_and_devices_are_taken_over_on_request(grown: Grown, change: Change) -> None:
    """They may vote otherwise where margins are tiny; the new file says what cast the votes."""
    change(grown)
    assert grown.adopt() is None
    assert not grown.taken_over.exists()
    assert grown.adopt(across=True) is not None
    keys = ("versions", "decoder", "device", "votes_version")
    found, there = described(grown.taken_over), described(grown.file)
    assert [found[key] for key in keys] == [there[key] for key in keys]


@pytest.mark.parametrize("has_success", [True, False])
def test_another_writer_may_be_first(grown: Grown, has_success: bool) -> None:
    """Its file stays if it holds the same images, whatever its votes are."""
    if not has_success:
        (grown.old / "_SUCCESS").unlink()
    grown.taken_over.parent.mkdir()
    shutil.copy(grown.computed, grown.taken_over)
    first = grown.taken_over.read_bytes()
    adopted = grown.adopt()
    assert adopted == Adopted(
        grown.old.name, {"ok": 5, "decode_error": 1}, Published(False, hashes_of(grown.taken_over.read_bytes()))
    )
    assert grown.taken_over.read_bytes() == first


@pytest.mark.parametrize("change", [{"sha256": bytes(32)}, {"key": "other"}], ids=["image", "key"])
def test_a_file_with_other_images_is_an_error(grown: Grown, change: dict[str, Any]) -> None:
    """The other writer saw another tar; its file stays."""
    grown.taken_over.parent.mkdir()
    with_rows(grown, **change)
    shutil.copy(grown.computed, grown.taken_over)
    with pytest.raises(ShardError, match=r"00000-00\.parquet is there already, with other images; move it away"):
        grown.adopt()
    assert grown.taken_over.read_bytes() == grown.computed.read_bytes()


@pytest.fixture(scope="module")
def again(runs: Grown, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A copy of the runs whose source changes with each example."""
    folder = tmp_path_factory.mktemp("again") / "runs"
    shutil.copytree(runs.old.parent, folder)
    return _moved(runs, folder)


@given(share=st.floats(0, 1), bit=st.integers(0, 7))
@example(share=1.0, bit=0)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_wrong_bit_anywhere_is_noticed(again: Grown, runs: Grown, share: float, bit: int) -> None:
    """The whole file is hashed if its run is finished: pages and footer alike."""
    (again.old / "_SUCCESS").write_bytes((runs.old / "_SUCCESS").read_bytes())
    again.file.write_bytes(_flipped(runs.file.read_bytes(), share, bit))
    assert again.adopt() is None
    assert not again.taken_over.exists()


@given(share=st.floats(0, 1), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_no_wrong_bit_changes_rows_that_are_taken_over(again: Grown, runs: Grown, share: float, bit: int) -> None:
    """Without _SUCCESS, the checksums of pages and columns: what is taken over has the right rows, or nothing is."""
    (again.old / "_SUCCESS").unlink(missing_ok=True)
    again.file.write_bytes(_flipped(runs.file.read_bytes(), share, bit))
    again.taken_over.unlink(missing_ok=True)
    if again.adopt() is not None:
        found, computed = pq.read_table(again.taken_over), pq.read_table(runs.computed)
        assert found.schema.equals(computed.schema)
        assert found.to_pylist() == computed.to_pylist()
    again.taken_over.unlink(missing_ok=True)


def _flipped(data: bytes, share: float, bit: int) -> bytes:
    """The data with one wrong bit, at this share of its length."""
    place = min(int(share * len(data)), len(data) - 1)
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


def test_each_region_of_the_file_is_covered(runs: Grown) -> None:
    """The examples above fall into pages and footer: both are a good part of the file."""
    data = file_of(runs.old).read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    assert 0.2 < footer / len(data) < 0.9
