"""Nights whose pages have no curves, which take most of the time; test_plots.py draws them."""

from collections.abc import Callable

import pytest

from smoothcert.pipeline.nightly import plots
from smoothcert.pipeline.nightly.records import NightRecord
from smoothcert.pipeline.report import plots as report_plots
from tests.helpers.nights import a_night

Night = Callable[..., tuple[int, NightRecord]]


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plots, report_plots):
        monkeypatch.setattr(module, "svg_of", lambda _axes, name: f'<svg id="{name}"></svg>')


@pytest.fixture
def run_night(no_curves: None, monkeypatch: pytest.MonkeyPatch) -> Night:
    return lambda *arguments, **options: a_night(monkeypatch, *arguments, **options)
