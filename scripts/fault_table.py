"""Turn what the fault tests recorded into docs/reliability.md.

python scripts/fault_table.py faults.jsonl > docs/reliability.md
"""

import argparse
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HEADER = """# What faults cost

Each line is a real run into which a fault was put, compared value for value with an undisturbed run that one process
made without Ray. Duplicates and wrong values are rows; both must be 0. Images are missing only where a shard was given
up or the run was ended, and then the run says so, names the shard, exits with 1 (or 130), and has no `_SUCCESS`. Where
two exit codes stand, the same command was given again. Seconds to recover run from the fault to the next shard done
(S3: to the next good answer to the same request; given up: to that line; SIGTERM: to the end). They are mostly the
start of another process.

Written by `scripts/fault_table.py`, not by hand, from what tests/pipeline/certify/test_faults.py, test_nodes.py (a Ray
cluster of several nodes on one machine) and test_soak.py record; a test that is run again adds its line anew, so the
lines need not be of one invocation:

    SMOOTHCERT_FAULTS=/tmp/faults.jsonl python -m pytest tests/pipeline/test_{{faults,nodes,soak}}.py
    python scripts/fault_table.py /tmp/faults.jsonl > docs/reliability.md

Lost machines with kernels' connections and networks of their own: `scripts/lab/run.py` (one killed, one silent: its
shards are taken up after seconds; each time 24,000 images in, 24,000 out, none twice, none changed:
scripts/lab/expected.txt).

Last made on {date} with Ray {ray} on {cpus} CPU cores.

| fault | images in | images out | duplicates | wrong values | exit code | seconds to recover |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    records = [json.loads(line) for line in parser.parse_args().records.read_text().splitlines()]
    print(HEADER.format(date=datetime.now(UTC).date(), ray=version("ray"), cpus=os.cpu_count()))
    print("\n".join(rows_of(records)))


def rows_of(records: Iterable[dict[str, Any]]) -> Iterable[str]:
    """A line of Markdown for each record."""
    for record in records:
        seconds = record["seconds_to_recover"]
        values = [*list(record.values())[:-1], "" if seconds is None else f"{seconds:.1f}"]
        yield f"| {' | '.join(map(str, values))} |"


if __name__ == "__main__":
    main()
