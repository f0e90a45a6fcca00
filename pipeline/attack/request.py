"""What `smoothcert attack` was asked for: an attack with patches, or with small changes of whole images.

Not covered: the answers (patches.py, whole_images.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console

from smoothcert.manifests.ablation import Ablation, Area, MaskAblation
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import NormAttack, PatchAttack
from smoothcert.manifests.yaml_file import validate
from smoothcert.pipeline.attack.patches import attack_with_patches
from smoothcert.pipeline.attack.whole_images import attack_whole_images
from smoothcert.pipeline.query.questions import parse_patches
from smoothcert.pipeline.studies.selection import Choice, Only
from smoothcert.workers.runs.run import Run

_NAME_ONE = "name one of --patch SIDE (the smoothed classifier) and --norm NORM (the whole image)"
_OF_PATCHES = ("only", "places", "random_places", "losses")
_OF_NORMS = ("eps", "attack")
_USELESS = {"fgsm": ("steps", "restarts", "queries"), "pgd": ("restarts", "queries"), "apgd": ("queries",)}


class Answer(Protocol):
    """What an attack has found."""

    @property
    def problems(self) -> list[str]:
        """Why the exit code is 1, a line each."""

    @property
    def notices(self) -> list[str]:
        """What else a reader must know, a line each."""

    def as_json(self) -> dict[str, Any]:
        """For --json."""

    def show(self, console: Console) -> None:
        """Print it, as a person reads it."""


@dataclass(frozen=True)
class Request:
    """An attack.

    Attributes:
        settings: the attack.
        choice: of the images.
    """

    settings: PatchAttack | NormAttack
    choice: Choice

    def answer(self, run: Run, console: Console, *, allow_code: bool = False) -> Answer:
        """Do it, or continue it.

        Args:
            run: whose images are attacked.
            console: where to say how it goes.
            allow_code: whether code that the job names may run.
        Raises:
            RequestError, RunError: the attack cannot begin, or cannot continue.
        """
        if isinstance(self.settings, PatchAttack):
            return attack_with_patches(run, self.settings, self.choice, console, allow_code=allow_code)
        return attack_whole_images(run, self.settings, self.choice, console, allow_code=allow_code)


def patch_of_masks(ablation: Ablation) -> str:
    """The patch that is attacked with if none is named: that against which masks were made.

    Raises:
        RequestError: the ablation says nothing of one patch.
    """
    if not isinstance(ablation, MaskAblation) or isinstance(ablation.threat, Area):
        raise RequestError(_NAME_ONE)
    height, width = ablation.threat
    return f"{height}x{width}"


def request_of(*, patch: str | None, norm: str | None, limit: int | None, seed: int, **options: Any) -> Request:
    """Read the options of the command; those that were not given are None.

    Raises:
        RequestError: they do not go together, or a value is wrong.
    """
    if (patch is None) == (norm is None):
        raise RequestError(_NAME_ONE)
    given = {name: value for name, value in options.items() if value is not None}
    if patch is None:
        _refuse(given, _OF_PATCHES, "--patch")
        if "eps" not in given:
            raise RequestError("--norm: needs --eps, the size of the changes, such as --eps 4/255")
        for name in _USELESS.get(given.get("attack", "standard"), ()):
            if name in given:
                raise RequestError(f"--{name}: --attack {given['attack']} has none; leave it out")
        return Request(validate(NormAttack, given | {"norm": norm}, "attack"), Choice(limit, seed))
    _refuse(given, _OF_NORMS, "--norm")
    sides = parse_patches([patch])
    if len(sides) != 1:
        raise RequestError(f"--patch {patch}: an attack has one size of patch; name one")
    only = Only(given.pop("only", Only.uncertified))
    height, width = sides[0]
    settings = validate(PatchAttack, given | {"height": height, "width": width}, "attack")
    return Request(settings, Choice(limit, seed, only))


def _refuse(given: Mapping[str, Any], names: tuple[str, ...], option: str) -> None:
    if wrong := [name for name in names if name in given]:
        shown = {"losses": "loss"}.get(wrong[0], wrong[0]).replace("_", "-")
        raise RequestError(f"--{shown}: goes with {option}; leave it out")
