"""The rows about certificates in the tables of `certify` and `verify`.

Not covered: the figures (pipeline/overview/summary.py, pipeline/verify/figures.py), which are counted apart.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from smoothcert.manifests.ablation import Area, threat_in_words
from smoothcert.pipeline.console.looks import DASH, percent


def certified_rows(entries: Iterable[Mapping[str, Any]], *, labelled: bool) -> list[tuple[str, str, str]]:
    """A heading, and a row for each patch; of masks a heading with their threat, and a row for each certificate.

    Args:
        entries: as `certified` of _SUCCESS holds them.
        labelled: whether shares are of right predictions.
    """
    title, rows = "certified accuracy" if labelled else "certified share", list[tuple[str, str, str]]()
    for entry in entries:
        if "margin" in entry:
            rows = rows or [(title, "exact", "margin rule")]
            patch = threat_in_words(entry["patch"])
            rows.append((f"  patch {patch}", percent(entry["exact"]), percent(entry["margin"])))
        else:
            patch = threat_in_words(entry["patch"] or Area(entry["pixels"]), entry["patches"])
            rows += [
                (f"{title} against {patch}", "exact", "published rule"),
                ("  recovery", percent(entry["exact"]), percent(entry["published"])),
                ("  detection", DASH, percent(entry["detection"])),
            ]
    return rows
