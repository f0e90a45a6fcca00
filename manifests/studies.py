"""What a study measures. A study measures images of a run besides votes: an attack, sensitivity, amplification.

Settings are frozen pydantic models. The id of a study follows from its kind, its settings, its choice of images and the
run, so the same command continues a study that was interrupted.

Not covered: the computing (workers/studies/); which images are chosen (pipeline/studies/selection.py).
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from smoothcert.manifests.ablation import Pixels
from smoothcert.manifests.identity import run_id_of
from smoothcert.manifests.job import Count
from smoothcert.manifests.lengths import Length
from smoothcert.manifests.yaml_file import Part

NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Study(Part):
    """The settings of one kind of study."""

    kind: ClassVar[str]
    """Its name, as the command line and the files have it."""
    version: ClassVar[int] = 1
    """Raised whenever the same settings would give other rows."""

    def identity(self, run_id: str, choice: dict[str, Any]) -> dict[str, Any]:
        """What determines the rows.

        Args:
            run_id: of the run.
            choice: of the images.
        """
        settings = self.model_dump(mode="json", exclude_defaults=True)
        return {"run": run_id, "kind": self.kind, "version": self.version, "settings": settings, "choice": choice}

    def id_for(self, run_id: str, choice: dict[str, Any]) -> str:
        """The id of the study; arguments as for `identity`."""
        return run_id_of(self.identity(run_id, choice))


class PatchAttack(Study):
    """Search a patch that changes the prediction of the smoothed classifier."""

    kind: ClassVar[str] = "patch-attack"

    height: Pixels
    """Height of the patch."""
    width: Pixels
    """Width of the patch."""
    places: NotNegative = 4
    """Places that are tried, those of the smallest slack first."""
    random_places: NotNegative = 1
    """Places that are tried after them, drawn at random."""
    steps: NotNegative = 30
    """Steps of one run of APGD; 0: no APGD."""
    losses: tuple[Literal["ce", "dlr"], ...] = ("ce", "dlr")
    """Losses of APGD, a run for each."""
    restarts: Count = 1
    """Runs of APGD for each loss and place."""
    queries: NotNegative = 100
    """Queries of Square for each place; 0: no Square."""

    @model_validator(mode="after")
    def _attacks_something(self) -> Self:
        if not self.places + self.random_places:
            raise ValueError("places: none and no random ones leave nothing to attack; name at least one")
        if not self.steps + self.queries:
            raise ValueError("steps: no steps and no queries leave no attack; name one of them")
        return self


class NormAttack(Study):
    """Search a small change of the whole image that changes the class, as RobustBench does."""

    kind: ClassVar[str] = "norm-attack"

    norm: Literal["linf", "l2"] = "linf"
    """The norm of the change."""
    eps: Length
    """Its largest size, for pixels between 0 and 1."""
    attack: Literal["standard", "apgd", "pgd", "fgsm"] = "standard"
    """standard: APGD-CE, targeted APGD, Square; apgd: APGD-CE; pgd, fgsm: cheap and weak."""
    steps: Count = 100
    """Steps of APGD and PGD."""
    restarts: Count = 1
    """Runs of APGD-CE."""
    queries: Count = 5000
    """Queries of Square."""

    @model_validator(mode="after")
    def _is_a_change_of_pixels(self) -> Self:
        if self.norm == "linf" and self.eps > 1:
            raise ValueError(f"eps: {self.eps:g} is more than any pixel can change; write 8/255, not 8")
        return self


class Sensitivity(Study):
    """Change a share of the tokens, and see what changes. A measurement, never a certificate."""

    kind: ClassVar[str] = "sensitivity"

    share: Share = 0.1
    """Share of the tokens that change together; at least one token, and not all."""
    draws: Count = 8
    """Draws of tokens for each image; each is changed in every way."""
    noise: Annotated[float, Field(gt=0)] = 0.1
    """Standard deviation of the noise that corrupts tokens, for pixels between 0 and 1."""
    by_token: bool = True
    """Also occlude each token alone: one forward pass for each."""


class Amplification(Study):
    """How much each block of the network can amplify a small change of its input."""

    kind: ClassVar[str] = "amplification"

    iterations: Count = 10
    """Rounds of power iteration."""
    exact_below: NotNegative = 1024
    """Up to this many numbers in a block's input and output, the value is exact, from the whole Jacobian."""


KINDS: dict[str, type[Study]] = {kind.kind: kind for kind in (PatchAttack, NormAttack, Sensitivity, Amplification)}
"""All kinds by name."""
