"""What the JSON of every study says about the study itself.

Not covered: what was found (a room for each kind).
"""

from collections.abc import Sequence
from typing import Any

from smoothcert.workers.studies.study import StoredStudy


def about(study: StoredStudy, failures: Sequence[str]) -> dict[str, Any]:
    """Which study it is, and whether it is complete.

    Args:
        study: the study.
        failures: why parts are missing, a line each.
    """
    record = study.record
    return {
        "run_id": record.run_id,
        "study_id": record.study_id,
        "path": study.url,
        "complete": not failures,
        "settings": record.settings,
        "choice": record.choice,
        "candidates": record.candidates,
        "failures": list(failures),
    }
