"""A study on disk."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.manifests.errors import RequestError, RunError
from smoothcert.manifests.studies import Amplification
from smoothcert.workers.runs.run import open_run
from smoothcert.workers.studies.study import PartRecord, StoredStudy, StudyRecord, studies_of


def begin(folder: Path, **changes: object) -> StoredStudy:
    """A study of two parts, begun in a run."""
    run = open_run(folder)
    record = StudyRecord(
        **{
            "study_id": "ab12",
            "run_id": run.run_id,
            "kind": "amplification",
            "settings": {"iterations": 3},
            "choice": {"limit": None, "seed": 0},
            "candidates": 9,
            "created": "2020-01-01T00:00:00+00:00",
            "parts": (PartRecord(shard=0, images=(0, 2)), PartRecord(shard=1, images=(1,))),
        }
        | changes
    )
    run.store.publish(run.url, "studies/ab12/study.json", record.encode())
    (study,) = studies_of(run)
    return study


def publish(study: StoredStudy, part: int) -> Path:
    task = study.tasks[part]
    path = Path(study.run.url, task.file_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"index": pa.array(task.images, pa.int32())}), path)
    return path


def test_what_is_written_is_read(run: Path) -> None:
    study = begin(run)
    assert study.settings == Amplification(iterations=3)
    assert [(task.shard.name, task.images, task.limit) for task in study.tasks] == [
        ("00.tar", (0, 2), 2),
        ("01.tar", (1,), 1),
    ]
    assert [task.file_name for task in study.tasks] == [
        "studies/ab12/rows/00000-00.parquet",
        "studies/ab12/rows/00001-01.parquet",
    ]


def test_parts_are_missing_until_they_are_published(run: Path) -> None:
    study = begin(run)
    assert study.missing() == study.tasks
    publish(study, 1)
    assert study.missing() == study.tasks[:1]
    assert study.published() == {study.tasks[1].file_name}
    assert study.success() is None
    publish(study, 0)
    study.finish()
    assert study.success().rows == 3
    assert study.rows()["index"].to_pylist() == [0, 2, 1]


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense PAR1"])
def test_damage_is_never_read(damage: bytes, run: Path) -> None:
    """Neither before nor after the study is complete."""
    study = begin(run)
    files = [publish(study, 0), publish(study, 1)]
    whole = files[0].read_bytes()
    files[0].write_bytes(damage)
    with pytest.raises(RunError, match=r"00000-00\.parquet is damaged"):
        study.rows()
    files[0].write_bytes(whole)
    study.finish()
    pq.write_table(pa.table({"index": pa.array([7, 7], pa.int32())}), files[0])
    with pytest.raises(RunError, match="its SHA-256 is not the one in _SUCCESS"):
        study.rows()


@pytest.mark.parametrize("changes", [{"kind": "phrenology"}, {"settings": {"iterations": "many"}}])
def test_a_study_of_another_version_is_one_line(changes: dict[str, object], run: Path) -> None:
    with pytest.raises(RequestError, match=r"study\.json is damaged"):
        begin(run, **changes).settings  # noqa: B018


def test_a_damaged_record_is_one_line(run: Path) -> None:
    study = begin(run)
    path = Path(study.url, "study.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parts": "all"}))
    with pytest.raises(RunError, match=r"study\.json is damaged \(parts"):
        studies_of(open_run(run))


def test_a_run_without_studies_has_none(finished: Path) -> None:
    assert studies_of(open_run(finished)) == []
