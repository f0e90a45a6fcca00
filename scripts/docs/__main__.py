"""`make docs`: write the tables of the documentation anew from runs.

    python -m scripts.docs [RUNS]        RUNS is a folder of runs; default: runs

Run it from the root of the repository. If a run of a table is not in RUNS, the table is not changed: a line says
which run is missing and how to make it, and the exit code is 1. Tables that come from benchmarks have their commands
beside them instead; docs/reliability.md comes from scripts/fault_table.py.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.docs.figures import MissingRunError, figures_of
from scripts.docs.pages import markdown_of, with_table
from scripts.docs.tables import TABLES, Table

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"))
    runs = parser.parse_args().runs
    missing = [line for table in TABLES for line in write_table(table, runs, _ROOT)]
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


def write_table(table: Table, runs: Path, root: Path) -> Iterator[str]:
    """Write one table into its page below `root`; a line for each run that is missing, and then no change."""
    rows, missing = [], {}
    for row in table.rows:
        try:
            rows.append(figures_of(table, row, runs))
        except MissingRunError as error:
            missing[row.run] = f"{table.page}, table {table.name}: {error}; make it: {row.command}"
    if not missing:
        page = root / table.page
        page.write_text(with_table(page.read_text(), table, markdown_of(table, rows)))
        print(f"{table.page}, table {table.name}: written")
    yield from missing.values()


if __name__ == "__main__":
    sys.exit(main())
