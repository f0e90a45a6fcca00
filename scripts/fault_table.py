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

Each line is a real run with one injected fault. Its rows are compared value for value with those of an undisturbed
run that one process made without Ray. *Duplicates* and *wrong values* count rows; both must be 0. Images are missing
only if a shard was given up or the run was ended. Then the run names the shard, exits with 1 (or 130) and has no
`_SUCCESS`. Two exit codes mean that the same command was run again. *Seconds to recover* is the time from the fault to
the next finished shard (S3: to the next good answer to the same request; given up: to that line; SIGTERM: to the end).
Most of it is the start of another process.

`scripts/fault_table.py` writes this page from the records of the tests below. test_nodes.py runs a Ray cluster of
several nodes on one machine. A test that runs again adds its line again, so lines may come from several invocations:

    SMOOTHCERT_FAULTS=/tmp/faults.jsonl python -m pytest tests/pipeline/certify/test_{{*faults,nodes,soak}}.py
    python scripts/fault_table.py /tmp/faults.jsonl > docs/reliability.md

`scripts/lab/run.py` tests lost machines that have network connections of their own. One is killed and one stops
answering; others continue its shards within seconds. Each time 24,000 images go into each of two runs of a suite and
24,000 come out, none twice and none changed (scripts/lab/expected.txt).

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
