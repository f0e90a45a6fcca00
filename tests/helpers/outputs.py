"""Outputs with several small runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from smoothcert.workers.networks.described_jobs import load_job
from tests.helpers import jobs
from tests.helpers.finished_runs import edit_json, finish_job

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def make_output(folder: Path, runs: int) -> list[Path]:
    """Complete runs of one job at several strides, of two shards each, in FOLDER/runs."""
    jobs.write_shards(folder, shards=2, images=3)
    path = jobs.write_job(folder)
    return [finish_job(load_job(path, [f"ablation.stride={stride}"])) for stride in range(1, runs + 1)]


def begin_before(run: Path, days: float | None, now: datetime = NOW) -> None:
    """Let a run begin this long before a moment; None: run.json does not say when."""
    created = None if days is None else (now - timedelta(days=days)).isoformat()
    edit_json(run / "run.json", lambda record: record.update(created=created))


def adopt(run: Path, source: Path, files: int = 1) -> None:
    """Let a complete run say that it has taken over files of another."""
    edit_json(run / "_SUCCESS", lambda success: success.setdefault("adopted_from", {}).update({source.name: files}))
