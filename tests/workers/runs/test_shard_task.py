"""What driver and actors tell each other: names of files, counts of rows, and no torch."""

import subprocess
import sys

import pytest

from smoothcert.manifests.shards import Shard
from smoothcert.workers.runs.shard_task import ShardReport, ShardTask


@pytest.mark.parametrize(
    ("index", "name", "file"),
    [
        (0, "val-00.tar", "votes/00000-val-00.parquet"),
        (12345, "a.tar", "votes/12345-a.parquet"),
        (7, "x.tar.tar", "votes/00007-x.tar.parquet"),  # one suffix goes
        (1, "no suffix", "votes/00001-no suffix.parquet"),
    ],
)
def test_a_file_is_named_by_the_place_and_name_of_its_shard(index, name, file):
    """Names sort in the order of the run's shards."""
    assert ShardTask(index, Shard(name, f"/tars/{name}", 1, "f"), None).file_name == file


def test_a_report_counts_rows_of_every_status():
    """A row with an error is a row."""
    task = ShardTask(0, Shard("a.tar", "/a.tar", 1, "f"), None)
    report = ShardReport(
        "run", task, {"ok": 3, "decode_error": 2}, seconds=1.0, turn_s=0.5, waited_s=0.1, published=True, node="n"
    )
    assert report.rows == 5


def test_messages_load_no_torch():
    """The driver imports them."""
    code = "import sys, smoothcert.workers.runs.shard_task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
