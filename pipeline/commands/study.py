"""Commands that ask the network about single images: attacks, sensitivity, amplification."""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.pipeline.commands.arguments import (
    AllowCode,
    AsJson,
    Overrides,
    Overwrite,
    StorageSettings,
    Target,
    storage_of_options,
)
from smoothcert.pipeline.console.exit_codes import ends_with_exit_code, stdout_alone
from smoothcert.pipeline.console.looks import console_of, say

if TYPE_CHECKING:
    from smoothcert.manifests.studies import Study
    from smoothcert.pipeline.studies.whole_images import AnswerKind


class Norm(StrEnum):
    linf = "linf"
    l2 = "l2"


class Method(StrEnum):
    standard = "standard"
    apgd = "apgd"
    pgd = "pgd"
    fgsm = "fgsm"


class Loss(StrEnum):
    ce = "ce"
    dlr = "dlr"


class Only(StrEnum):
    uncertified = "uncertified"
    certified = "certified"
    all = "all"


Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the draw of the images, and of all else that is random.")
]
DrawnImages = Annotated[int, typer.Option("--limit", min=1, help="Measure N images, drawn at random.")]
Picture = Annotated[str | None, typer.Option(metavar="FILE", help="Write a picture (PNG) to this file.")]


@ends_with_exit_code
def attack(
    target: Target,
    patch: Annotated[
        str | None, typer.Option(metavar="SIDE|HxW", help="Attack with such a patch; default of masks: their threat.")
    ] = None,
    norm: Annotated[Norm | None, typer.Option(help="Attack the whole-image classifier with small changes.")] = None,
    eps: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of the changes for pixels from 0 to 1, such as 4/255.")
    ] = None,
    only: Annotated[Only | None, typer.Option(help="With --patch, which images; default: uncertified.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Attack N images, drawn at random.")] = None,
    seed: Seed = 0,
    places: Annotated[
        int | None, typer.Option(min=0, help="With --patch: places of the smallest slack to try; default: 4.")
    ] = None,
    random_places: Annotated[
        int | None, typer.Option(min=0, help="With --patch: random places to try after them; default: 1.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option("--attack", help="With --norm: which attacks; default: standard.")
    ] = None,
    loss: Annotated[
        list[Loss] | None, typer.Option(help="With --patch: losses of APGD; repeatable; default: both.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of APGD or PGD; default: 30 (--patch), 100 (--norm).")
    ] = None,
    restarts: Annotated[int | None, typer.Option(min=1, help="Runs of APGD from other starts; default: 1.")] = None,
    queries: Annotated[
        int | None, typer.Option(min=0, help="Queries of Square; default: 100 a place (--patch), 5000 (--norm).")
    ] = None,
    overrides: Overrides = None,
    storage: StorageSettings = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> int:
    """Bound robust accuracy from above: search patches, or small changes, that change what a classifier says.

    Exit code 1 if images are missing, or if a certified image fell.
    """
    from smoothcert.pipeline.attack.request import patch_of_masks, request_of
    from smoothcert.pipeline.studies.plan import run_to_study

    named = target, overrides or (), storage_of_options(storage)
    if patch is None and norm is None:
        patch = patch_of_masks(run_to_study(*named, allow_code=allow_code, begins=False).job.ablation)
    asked = request_of(
        patch=patch,
        norm=norm and norm.value,
        eps=eps,
        only=only and only.value,
        limit=limit,
        seed=seed,
        places=places,
        random_places=random_places,
        attack=method and method.value,
        losses=loss and tuple(one.value for one in loss),
        steps=steps,
        restarts=restarts,
        queries=queries,
    )
    run = run_to_study(*named, allow_code=allow_code, begins=patch is None)
    json_to = stdout_alone() if as_json else None
    console = console_of()
    answer = asked.answer(run, console, allow_code=allow_code)
    if json_to is None:
        answer.show(console)
    else:
        print(json.dumps(answer.as_json()), file=json_to)
    for line in [*(f"failed: {line}" for line in answer.problems), *(f"notice: {line}" for line in answer.notices)]:
        say(console, line)
    return 1 if answer.problems else 0


@ends_with_exit_code
def sensitivity(
    target: Target,
    share: Annotated[float, typer.Option(help="Share of the tokens that each draw changes.")] = 0.1,
    draws: Annotated[int, typer.Option(min=1, help="Draws of tokens for each image.")] = 8,
    noise: Annotated[float, typer.Option(help="Strength of the noise that corrupts pixels from 0 to 1.")] = 0.1,
    by_token: Annotated[
        bool, typer.Option("--by-token/--no-by-token", help="Also occlude each token alone: a forward pass for each.")
    ] = True,
    limit: DrawnImages = 1000,
    seed: Seed = 0,
    picture: Picture = None,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """Measure what changes if a few tokens of the whole image change. It certifies nothing."""
    from smoothcert.manifests.studies import Sensitivity
    from smoothcert.manifests.yaml_file import validate
    from smoothcert.pipeline.sensitivity.answers import ANSWER

    raw = {"share": share, "draws": draws, "noise": noise, "by_token": by_token}
    settings = validate(Sensitivity, raw, "sensitivity")
    drawing = None if picture is None else (picture, overwrite)
    return _measure(target, settings, ANSWER, (limit, seed), drawing, overrides, allow_code, storage, as_json)


@ends_with_exit_code
def amplify(
    target: Target,
    iterations: Annotated[int, typer.Option(min=1, help="Rounds of power iteration; more come closer.")] = 10,
    exact_below: Annotated[
        int, typer.Option(min=0, help="Blocks with at most so many numbers get the exact value; slow if large.")
    ] = 1024,
    limit: DrawnImages = 100,
    seed: Seed = 0,
    picture: Picture = None,
    overwrite: Overwrite = False,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    storage: StorageSettings = None,
    as_json: AsJson = False,
) -> int:
    """Measure how much each encoder block can amplify a small change: the largest singular value of its Jacobian."""
    from smoothcert.manifests.studies import Amplification
    from smoothcert.manifests.yaml_file import validate
    from smoothcert.pipeline.amplify.answers import ANSWER

    settings = validate(Amplification, {"iterations": iterations, "exact_below": exact_below}, "amplify")
    drawing = None if picture is None else (picture, overwrite)
    return _measure(target, settings, ANSWER, (limit, seed), drawing, overrides, allow_code, storage, as_json)


def _measure(
    target: str,
    settings: "Study",
    kind: "AnswerKind",
    drawn: tuple[int, int],
    picture: tuple[str, bool] | None,
    overrides: list[str] | None,
    allow_code: bool,
    storage: list[str] | None,
    as_json: bool,
) -> int:
    """A study of whole images; `drawn` is limit and seed, `picture` its place and whether it is replaced."""
    from smoothcert.pipeline.studies.plan import run_to_study
    from smoothcert.pipeline.studies.selection import Choice
    from smoothcert.pipeline.studies.whole_images import answer, measure
    from smoothcert.workers.storage.output_file import OutputFile

    reach = storage_of_options(storage)
    drawing = None if picture is None else OutputFile(picture[0], "--picture", picture[1], reach)
    if drawing is not None:
        drawing.check()
    run = run_to_study(target, overrides or (), reach, allow_code=allow_code)
    json_to = stdout_alone() if as_json else None
    measured = measure(run, settings, Choice(*drawn), kind, console_of(), allow_code=allow_code)
    answer(measured, kind, console_of(), json_to=json_to, picture=drawing)
    return 1 if measured.failures else 0
