"""`smoothcert attack JOB --norm`: robust accuracy of the whole-image classifier, as RobustBench counts it.

Not covered: the attacks (workers/studies/norm_attack.py).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from smoothcert.manifests.studies import NormAttack
from smoothcert.pipeline.console.looks import DASH, facts, number_of, percent, say, show
from smoothcert.pipeline.statistics import share_interval
from smoothcert.pipeline.studies.about import about
from smoothcert.pipeline.studies.driver import conduct
from smoothcert.pipeline.studies.plan import plan_study
from smoothcert.pipeline.studies.selection import Choice, all_images
from smoothcert.workers.runs.run import Run
from smoothcert.workers.runs.votes_table import numbers_of
from smoothcert.workers.studies.study import StoredStudy

_ROUNDING = 1e-9


@dataclass(frozen=True)
class NormAnswer:
    """What an attack has found. An image that could not be read counts as wrong.

    Attributes:
        study: the attack.
        images: how many were attacked.
        right: those that the classifier gets right.
        robust: those that are right after the attack, too.
        by_attack: how many images each attack changed.
        errors: images that could not be read.
        certified: against each square of the job: robust and certified, certified alone, robust alone, neither; of the
            images that have votes.
        failures: why images are missing, a line each.
    """

    study: StoredStudy
    images: int
    right: int
    robust: int
    by_attack: Mapping[str, int]
    errors: int
    certified: Mapping[int, tuple[int, int, int, int]]
    failures: list[str]

    @property
    def settings(self) -> NormAttack:
        """Those of the attack."""
        assert isinstance(self.study.settings, NormAttack)
        return self.study.settings

    def as_json(self) -> dict[str, Any]:
        """For --json; `robustbench` has the keys of RobustBench's model cards."""
        return {
            **about(self.study, self.failures),
            "images": self.images,
            "clean_accuracy": _share(self.right, self.images),
            "robust_accuracy": _share(self.robust, self.images),
            "by_attack": dict(self.by_attack),
            "errors": self.errors,
            "certified": [
                {
                    "patch": [side, side],
                    **dict(zip(("both", "certified_only", "robust_only", "neither"), counts, strict=True)),
                }
                for side, counts in self.certified.items()
            ],
            "robustbench": self.robustbench(),
            "problems": self.problems,
        }

    def robustbench(self) -> dict[str, Any]:
        """The keys of a model card of RobustBench that follow from the attack."""
        job, settings = self.study.run.job, self.settings
        return {
            "name": job.name,
            "architecture": job.model.architecture,
            "threat_model": {"linf": "Linf", "l2": "L2"}[settings.norm],
            "eps": _eps_text(settings),
            "number_forward_passes": 1,
            "clean_acc": f"{100 * self.right / max(1, self.images):.2f}",
            "external": f"{100 * self.robust / max(1, self.images):.2f}",  # of attacks that are not AutoAttack
        }

    @property
    def problems(self) -> list[str]:
        """Why the exit code is 1, a line each."""
        return self.failures

    @property
    def notices(self) -> list[str]:
        """What else a reader must know, a line each."""
        return [f"{number_of(self.errors, 'image')} could not be read and count as wrong"] if self.errors else []

    def show(self, console: Console) -> None:
        """Print it, as a person reads it."""
        settings, eps = self.settings, _eps_text(self.settings)
        table = facts(
            f"{settings.attack} in {settings.norm}, eps {eps}, on whole images of run {self.study.run.run_id}"
        )
        table.add_row("images", f"{self.images:,} of {self.study.record.candidates:,}")
        table.add_row("clean accuracy", _text(self.right, self.images))
        table.add_row("robust accuracy, at most", _text(self.robust, self.images))
        table.add_row("changed by", ", ".join(f"{name} {count:,}" for name, count in self.by_attack.items()) or DASH)
        for side, (both, certified, robust, _) in self.certified.items():
            counts = f"{both + certified:,}, of which robust {both:,}; robust alone {robust:,}"
            table.add_row(f"certified against {side} x {side}", counts)
        show(console, table)
        say(console, self.study.url)


def _eps_text(settings: NormAttack) -> str:
    """As papers write it: linf as a fraction of 255 if it is one."""
    of_255 = 255 * settings.eps
    is_fraction = settings.norm == "linf" and abs(of_255 - round(of_255)) < _ROUNDING
    return f"{round(of_255)}/255" if is_fraction else f"{settings.eps:g}"


def _share(count: int, images: int) -> dict[str, float]:
    low, high = share_interval(count, images)
    return {"count": count, "share": count / max(1, images), "low": low, "high": high}


def attack_whole_images(
    run: Run, settings: NormAttack, choice: Choice, console: Console, *, allow_code: bool = False
) -> NormAnswer:
    """Attack whole images of a run's tars, or continue to; arguments and errors as for `attack_with_patches`."""
    plan = plan_study(run, settings, choice, lambda: all_images(run), allow_code=allow_code)
    study, (rows, failures) = plan.study, conduct(plan, console)
    if rows is None:
        return NormAnswer(study, 0, 0, 0, {}, 0, {}, failures)
    return NormAnswer(
        study=study,
        images=len(rows),
        right=_count(rows, "clean_right"),
        robust=_count(rows, "robust"),
        by_attack=dict(sorted(Counter(rows["attack"].drop_null().to_pylist()).items())),
        errors=len(rows) - rows["error"].null_count,
        certified=_with_certificates(run, rows),
        failures=failures,
    )


def _count(rows: pa.Table, column: str) -> int:
    return int(pc.sum(rows[column].cast(pa.int64())).as_py() or 0)


def _with_certificates(run: Run, rows: pa.Table) -> dict[int, tuple[int, int, int, int]]:
    """The images by whether they are robust, and right and certified against the squares of the job."""
    if not run.job.patches or not run.published():
        return {}
    columns = ["shard", "index", "label", "prediction", "max_certified_patch"]
    voted = run.images(columns).drop_null()
    joined = rows.select(["shard", "index", "robust"]).join(voted, ["shard", "index"], join_type="inner")
    right = numbers_of(joined["label"]) == numbers_of(joined["prediction"])
    robust = joined["robust"].fill_null(False).to_numpy()
    largest = numbers_of(joined["max_certified_patch"])
    found = {}
    for side in run.job.patches:
        certified = right & (largest >= side)
        counts = [certified & robust, certified & ~robust, ~certified & robust, ~certified & ~robust]
        found[side] = (int(counts[0].sum()), int(counts[1].sum()), int(counts[2].sum()), int(counts[3].sum()))
    return found


def _text(count: int, images: int) -> str:
    low, high = share_interval(count, images)
    return f"{percent(count / max(1, images))} ({percent(low)} to {percent(high)})"
