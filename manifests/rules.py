"""The names of all rules, as queries use them. The rules themselves: workers/certificates/families.py."""

from enum import StrEnum


class RuleName(StrEnum):
    exact = "exact"
    """Tight: certifies all that can be certified from the votes."""
    margin = "margin"
    """The published rule, made sound."""
