"""Which rule family each kind of ablation belongs to.

A new family needs a module with its rules and its stored columns, and an entry in the table below.

    majority         columns, rows and blocks: the class with the most votes (majority.py)
    double masking   masks: the class that all votes with one of the masks hidden show (double_masking.py)

The table of votes takes its columns from here (runs/votes_table.py).
"""

from smoothcert.manifests.ablation import Ablation
from smoothcert.workers.certificates.double_masking import DOUBLE_MASKING
from smoothcert.workers.certificates.family import RuleFamily
from smoothcert.workers.certificates.majority import MAJORITY

_FAMILIES: dict[str, RuleFamily] = {
    "column": MAJORITY,
    "row": MAJORITY,
    "block": MAJORITY,
    "mask": DOUBLE_MASKING,
}


def family_of(ablation: Ablation) -> RuleFamily:
    """The family of a job's ablation."""
    return _FAMILIES[ablation.kind]
