"""Where this checkout lies."""

from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
SHARED = HOUSE.parent / "shared"
"""Data for tests that not every machine has."""
