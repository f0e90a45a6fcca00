"""Rows of studies with figures that are easily worked out, as a study's files have them."""

from typing import Any

import pyarrow as pa


def sensitivity_rows(count: int, *, layers: int = 3, tokens: int | None = 4, unreadable: int = 0) -> pa.Table:
    """Image n changes in n / 10 of the draws; the margin falls by n, and n + 1, n + 2 for the other ways."""
    rows: list[dict[str, Any]] = [{"error": "decode_error: broken"} for _ in range(unreadable)]
    for n in range(count):
        row: dict[str, Any] = {"error": None, "tokens": None if tokens is None else [n + t for t in range(tokens)]}
        for number, way in enumerate(("occluded", "corrupted", "hidden")):
            row[f"{way}_changed"] = n / 10
            row[f"{way}_margin_change"] = float(n + number)
            row[f"{way}_drift"] = [(n + layer) / 100 for layer in range(layers)] if layers else None
        rows.append(row)
    floats = pa.list_(pa.float32())
    names = [f"{way}_{what}" for way in ("occluded", "corrupted", "hidden") for what in ("changed", "margin_change")]
    schema = pa.schema(
        [
            ("error", pa.string()),
            ("tokens", floats),
            *((name, pa.float32()) for name in names),
            *((f"{way}_drift", floats) for way in ("occluded", "corrupted", "hidden")),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def amplification_rows(count: int, *, exact: tuple[bool, ...] = (True, False), unreadable: int = 0) -> pa.Table:
    """Block b of image n has the value n + 1 + b."""
    rows: list[dict[str, Any]] = [{"error": "decode_error: broken"} for _ in range(unreadable)]
    rows += [
        {"error": None, "values": [float(n + 1 + b) for b in range(len(exact))], "exact": list(exact)}
        for n in range(count)
    ]
    schema = pa.schema([("error", pa.string()), ("values", pa.list_(pa.float32())), ("exact", pa.list_(pa.bool_()))])
    return pa.Table.from_pylist(rows, schema=schema)
