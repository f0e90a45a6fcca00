"""Records of the fault tests become the table of docs/reliability.md."""

import subprocess
import sys

from tests.helpers.faults import RECORD, Comparison, record
from tests.helpers.house import HOUSE

SCRIPT = HOUSE / "scripts" / "fault_table.py"


def test_each_record_is_a_line(tmp_path, monkeypatch):
    """Columns come in the order of the head; what did not have to recover leaves its cell empty."""
    records = tmp_path / "faults.jsonl"
    monkeypatch.setenv(RECORD, str(records))
    record("SIGKILL", Comparison(72, 71, 2, 3), "1", 4.56)
    record("two drivers", Comparison(72, 72, 0, 0), "0, 0")
    table = subprocess.run([sys.executable, SCRIPT, records], capture_output=True, text=True, check=True).stdout
    assert table.splitlines()[-2:] == [
        "| SIGKILL | 72 | 71 | 2 | 3 | 1 | 4.6 |",
        "| two drivers | 72 | 72 | 0 | 0 | 0, 0 |  |",
    ]
