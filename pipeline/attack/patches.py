"""`smoothcert attack RUN --patch`: attack images of a run with patches, and say how near certificates are to the truth.

Not covered: the attack (workers/studies/patch_attack.py); the bracket (pipeline/bracket.py).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import PatchAttack
from smoothcert.pipeline.bracket import Bracket, bracket
from smoothcert.pipeline.console.looks import DASH, facts, number_of, percent, say, show
from smoothcert.pipeline.statistics import share_interval
from smoothcert.pipeline.studies.about import about
from smoothcert.pipeline.studies.driver import conduct
from smoothcert.pipeline.studies.plan import plan_study
from smoothcert.pipeline.studies.selection import Choice, voted_images
from smoothcert.workers.runs.run import Run
from smoothcert.workers.studies.study import StoredStudy


@dataclass(frozen=True)
class PatchAnswer:
    """What an attack has found.

    Attributes:
        study: the attack.
        attacked: how many images were attacked.
        fell: how many fell.
        errors: how many could not be attacked.
        unconfirmed: patches that the voting engine did not confirm.
        forwards: mean number of forward passes of the touched ablations, for each image.
        by_attack: how many images each attack felled.
        bracket: what certificate and this attack say together.
        failures: why images are missing, a line each.
    """

    study: StoredStudy
    attacked: int
    fell: int
    errors: int
    unconfirmed: int
    forwards: float
    by_attack: dict[str, int]
    bracket: Bracket
    failures: list[str]

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        low, high = share_interval(self.fell, self.attacked)
        return {
            **about(self.study, self.failures),
            "attacked": self.attacked,
            "fell": self.fell,
            "fell_share": {"share": self.fell / max(1, self.attacked), "low": low, "high": high},
            "errors": self.errors,
            "unconfirmed": self.unconfirmed,
            "forwards_per_image": self.forwards,
            "by_attack": self.by_attack,
            "bracket": self.bracket.as_json(),
            "problems": self.problems,
        }

    @property
    def problems(self) -> list[str]:
        """Why the exit code is 1, a line each."""
        return [*self.failures, *self.bracket.problems]

    @property
    def notices(self) -> list[str]:
        """What else a reader must know, a line each."""
        lines = []
        if self.unconfirmed:
            lines.append(
                f"{number_of(self.unconfirmed, 'find')} did not count: the engine that votes, in the number format of "
                "the run, does not change its prediction there"
            )
        if self.errors:
            lines.append(f"{number_of(self.errors, 'image')} could not be attacked; `error` in the rows says why")
        return lines

    def show(self, console: Console) -> None:
        """Print it, as a person reads it."""
        one, (low, high) = self.bracket, share_interval(self.fell, self.attacked)
        accuracy = "accuracy" if one.labelled else "share of predictions that stay"
        table = facts(f"{one.patch[0]} x {one.patch[1]} patches on run {self.study.run.run_id}")
        only = self.study.record.choice["only"]
        which = "" if only == "all" else f"{only} "
        table.add_row(f"{which}images attacked", f"{self.attacked:,} of {self.study.record.candidates:,}")
        share = percent(self.fell / self.attacked) if self.attacked else DASH
        table.add_row("fell", f"{self.fell:,}: {share} ({percent(low)} to {percent(high)})")
        by_attack = ", ".join(f"{attack} {count:,}" for attack, count in self.by_attack.items())
        table.add_row("found by", by_attack or DASH)
        table.add_row("forward passes per image", f"{self.forwards:,.0f}")
        table.add_row(f"certified {accuracy}", percent(one.lower))
        table.add_row(f"{accuracy} under attack", one.upper_text)
        table.add_row(f"smoothed {accuracy}", percent(one.right / one.images))
        show(console, table)
        say(console, self.study.url)


def attack_with_patches(
    run: Run, settings: PatchAttack, choice: Choice, console: Console, *, allow_code: bool = False
) -> PatchAnswer:
    """Attack images of a run, or continue to.

    Args:
        run: complete.
        settings: the attack.
        choice: of the images.
        console: where to say how it goes.
        allow_code: whether code that the job names may run.
    Raises:
        RequestError, RunError: the attack cannot begin, or cannot continue.
    """
    patch = settings.height, settings.width
    only = choice.only
    if only is None:
        raise RequestError("--only: name which images to attack")
    plan = plan_study(run, settings, choice, lambda: voted_images(run, patch, only), allow_code=allow_code)
    return _answer(plan.study, *conduct(plan, console))


def _answer(study: StoredStudy, rows: pa.Table | None, failures: list[str]) -> PatchAnswer:
    settings = study.settings
    assert isinstance(settings, PatchAttack)
    patch = settings.height, settings.width
    attacked = rows.filter(rows["error"].is_null()) if rows is not None else None
    count = 0 if attacked is None else len(attacked)

    def total(column: str) -> int:
        return 0 if attacked is None else int(pc.sum(attacked[column].cast(pa.int64())).as_py() or 0)

    found = Counter() if attacked is None else Counter(attacked["attack"].drop_null().to_pylist())
    return PatchAnswer(
        study=study,
        attacked=count,
        fell=total("fell"),
        errors=0 if rows is None else len(rows) - count,
        unconfirmed=total("unconfirmed"),
        forwards=total("forwards") / max(1, count),
        by_attack=dict(sorted(found.items())),
        bracket=bracket(study.run, patch, [study]),
        failures=failures,
    )
