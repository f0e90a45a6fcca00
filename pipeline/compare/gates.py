"""Gates: limits on what the new run may lose. One evaluation gives sentence, table, JSON and exit code.

A gate that names nothing is an error, never a pass: an unknown patch, an empty class, an accepted image that is in
neither run, an acceptance that has run out.

    max_lost   images that lost it, beyond the tolerance, without the accepted ones
    max_drop   what is lost less what is gained, as a share of the paired images, likewise
    min, max   a share of all images of the new run

Not covered: what a gate file may hold (manifests/gates.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.gates import Gate, Gates
from smoothcert.pipeline.compare.comparison import Comparison, flags, lost_and_gained, within_tolerance
from smoothcert.pipeline.compare.measures import Certified
from smoothcert.pipeline.compare.pairs import names_of
from smoothcert.pipeline.pages.rows import Bools, Ints
from smoothcert.workers.runs.votes_table import ABSENT


@dataclass(frozen=True)
class GateResult:
    """One limit of one gate, for one class or all images.

    Attributes:
        text: what was found and what is allowed, a sentence.
        passed: whether the limit holds.
        images: [shard, key] of the images behind it.
    """

    text: str
    passed: bool
    images: pa.Table


@dataclass(frozen=True)
class GateResults:
    """What the gates of a file say about a comparison.

    Attributes:
        results: in the order of the file.
        accepted: lost images that the file accepts, each with the reason.
    """

    results: tuple[GateResult, ...]
    accepted: tuple[str, ...]

    @property
    def failures(self) -> tuple[GateResult, ...]:
        return tuple(result for result in self.results if not result.passed)

    @property
    def passed(self) -> bool:
        return not self.failures


def evaluate(comparison: Comparison, gates: Gates, today: date, *, file: Path | None = None) -> GateResults:
    """Judge a comparison.

    Args:
        comparison: of two runs.
        gates: from a gate file.
        today: acceptances of earlier days have run out.
        file: the gate file, for messages.
    Raises:
        RequestError: a line for each gate or acceptance that names nothing.
    """
    if mistakes := [*_wrong_gates(comparison, gates), *_wrong_acceptances(comparison, gates, today)]:
        raise RequestError("\n".join(mistakes if file is None else [f"{file}: {mistake}" for mistake in mistakes]))
    judge = _Judge(comparison, gates)
    results = tuple(result for gate in gates.gates for result in judge.results(gate))
    return GateResults(results, tuple(judge.accepted_losses()))


def _wrong_gates(comparison: Comparison, gates: Gates) -> Iterator[str]:
    known = {change.measure for change in comparison.certified}
    for place, gate in enumerate(gates.gates):
        at = f"gates[{place}]"
        if gate.metric == "certified" and _certified(gate) not in known:
            height, width = gate.patch or (0, 0)
            yield (
                f"{at}: the runs were not compared for {gate.certificate} against patches of {height} x {width} by the "
                f"{gate.rule} rule; add --patch {height}x{width}, or ask for what the votes of both runs decide"
            )
        elif gate.metric == "smoothed" and comparison.smoothed is None:
            yield f"{at}: metric smoothed needs labels, which the runs do not have; remove the gate"
        elif gate.metric == "clean" and comparison.clean is None:
            yield f"{at}: metric clean needs labels and clean predictions, which the runs do not have; remove the gate"
        elif gate.metric == "errors" and gate.class_ is not None and not comparison.pairs.labelled:
            yield f"{at}: metric errors has no classes in runs without labels; remove class"
        elif not (gate.class_ is None or any(True for _ in _classes(comparison, gate))):
            if gate.class_ == "each":
                yield f"{at}: no class has {gate.min_images} or more images in both runs; lower min_images"
            else:
                yield f"{at}: class {gate.class_} has no image in both runs; name another class"


def _wrong_acceptances(comparison: Comparison, gates: Gates, today: date) -> Iterator[str]:
    pairs = comparison.pairs
    tables = [table.select(["shard", "key"]) for table in (pairs.images, pairs.only_base, pairs.only_new)]
    there = pc.is_in(_named(gates), value_set=names_of(pa.concat_tables(tables)).combine_chunks())
    for place, (accepted, known) in enumerate(zip(gates.accept, there.to_pylist(), strict=True)):
        at = f"accept[{place}]: {accepted.shard}, key {accepted.key!r}"
        if not known:
            yield f"{at} is in neither run; correct it, or remove it"
        if accepted.until is not None and accepted.until < today:
            yield f"{at} was accepted until {accepted.until}; look at the image again, then renew `until` or remove it"


def _certified(gate: Gate) -> Certified:
    height, width = gate.patch or (0, 0)
    return Certified((height, width), gate.rule.value, gate.certificate)


def _named(gates: Gates) -> pa.Array:
    return pa.array([f"{one.shard}\0{one.key}" for one in gates.accept], pa.string())


def _class_numbers(comparison: Comparison, images: pa.Table, run: str) -> Ints:
    """[images]: the class of each: its label, or without labels its prediction in a run."""
    numbers: Ints = images["label" if comparison.pairs.labelled else f"{run}_prediction"].to_numpy()
    return numbers


def _classes(comparison: Comparison, gate: Gate) -> Iterator[int | None]:
    """The classes that a gate is about; None stands for all images."""
    if gate.class_ is None:
        yield None
        return
    numbers, counts = np.unique(_class_numbers(comparison, comparison.pairs.images, "base"), return_counts=True)
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        if number != ABSENT and gate.class_ in ("each", number) and count >= gate.min_images:
            yield number


class _Judge:
    """The images of a comparison, ready for gate after gate."""

    def __init__(self, comparison: Comparison, gates: Gates) -> None:
        self._comparison, self._gates = comparison, gates
        self._pairs = comparison.pairs.images
        self._accepted: Bools = np.asarray(pc.is_in(names_of(self._pairs), value_set=_named(gates)))
        only_new = comparison.pairs.only_new
        self._new = pa.concat_tables([self._pairs.select(only_new.column_names), only_new])

    def results(self, gate: Gate) -> Iterator[GateResult]:
        for number in _classes(self._comparison, gate):
            of_class = "" if number is None else f"class {number}: "
            for name, limit in gate.limits.items():
                judge = {"max_lost": self._max_lost, "max_drop": self._max_drop, "min": self._min, "max": self._max}
                yield judge[name](gate, number, limit, of_class + _text(gate))

    def accepted_losses(self) -> Iterator[str]:
        """The accepted images that lost anything that a gate is about."""
        lost = np.zeros(len(self._pairs), bool)
        for gate in self._gates.gates:
            if gate.metric != "errors":
                lost |= lost_and_gained(self._pairs, _column(gate))[0]
        gone = set(names_of(self._pairs.filter(pa.array(lost & self._accepted))).to_pylist())
        for one in self._gates.accept:
            if f"{one.shard}\0{one.key}" in gone:
                yield f"{one.shard}, {one.key}: {one.reason}"

    def _of_class(self, images: pa.Table, run: str, number: int | None) -> Bools:
        if number is None:
            return np.ones(len(images), bool)
        return np.asarray(_class_numbers(self._comparison, images, run) == number)

    def _losses(self, gate: Gate, number: int | None) -> tuple[Bools, int, int]:
        """Which pairs lost it beyond the tolerance and are not accepted, how many gained it, and how many there are."""
        there = self._of_class(self._pairs, "base", number)
        beyond = there & ~within_tolerance(self._pairs, _column(gate))
        lost, gained = lost_and_gained(self._pairs, _column(gate))
        return lost & beyond & ~self._accepted, int((gained & beyond).sum()), int(there.sum())

    def _max_lost(self, gate: Gate, number: int | None, limit: float, what: str) -> GateResult:
        lost, _, _ = self._losses(gate, number)
        count = int(lost.sum())
        return _result(f"{what}: {count:,} lost, at most {limit:,} may be", count <= limit, self._pairs, lost)

    def _max_drop(self, gate: Gate, number: int | None, limit: float, what: str) -> GateResult:
        lost, gained, images = self._losses(gate, number)
        drop = Fraction(int(lost.sum()) - gained, max(1, images))
        text = f"{what}: the share fell by {_points(drop)}, at most {_points(limit)} are allowed"
        return _result(text, drop <= _exactly(limit), self._pairs, lost)

    def _min(self, gate: Gate, number: int | None, limit: float, what: str) -> GateResult:
        share, _ = self._share(gate, number)
        text = f"{what}: {_percent(share)} of the new run, at least {_percent(limit)} is asked for"
        lost = lost_and_gained(self._pairs, _column(gate))[0] & self._of_class(self._pairs, "base", number)
        return _result(text, share >= _exactly(limit), self._pairs, lost)

    def _max(self, gate: Gate, number: int | None, limit: float, what: str) -> GateResult:
        share, there = self._share(gate, number)
        text = f"{what}: {_percent(share)} of the new run, at most {_percent(limit)} is allowed"
        return _result(text, share <= _exactly(limit), self._new, there)

    def _share(self, gate: Gate, number: int | None) -> tuple[Fraction, Bools]:
        """The share of the new run's images that have it, and which these are."""
        of_class = self._of_class(self._new, "new", number)
        there = flags(self._new, f"new_{_column(gate)}") & of_class
        return Fraction(int(there.sum()), max(1, int(of_class.sum()))), there


def _result(text: str, passed: bool, images: pa.Table, behind: Bools) -> GateResult:
    return GateResult(text, passed, images.filter(pa.array(behind)).select(["shard", "key"]))


def _column(gate: Gate) -> str:
    if gate.metric == "errors":
        return "error"
    return _certified(gate).column if gate.metric == "certified" else gate.metric


def _text(gate: Gate) -> str:
    return _certified(gate).text if gate.metric == "certified" else gate.metric


def _exactly(limit: float) -> Fraction:
    """The decimal number that the file holds: 0.005 of 1,000 images are 5."""
    return Fraction(repr(limit))


def _percent(share: Fraction | float) -> str:
    return f"{_digits(share)} %"


def _points(difference: Fraction | float) -> str:
    return f"{_digits(difference)} percentage points"


def _digits(share: Fraction | float) -> str:
    """In per cent; one image of a million shows."""
    return f"{100 * float(share):.7g}"
