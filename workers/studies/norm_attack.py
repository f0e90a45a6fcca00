"""Small changes of whole images that change the class, with the attacks and the conventions of RobustBench.

    right images -> APGD-CE -> those that stand -> targeted APGD -> those that stand -> Square

The classifier sees whole images; no votes are involved, and a change that is small everywhere is no patch. Perturbed
pixels are not rounded, as in RobustBench.

Source: Croce et al. 2021, arXiv:2010.09670 (RobustBench); Croce & Hein 2020, arXiv:2003.01690 (AutoAttack, of which FAB
is left out).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.studies import NormAttack
from smoothcert.workers.attacks.library import Attacked
from smoothcert.workers.attacks.whole_image import WholeImages
from smoothcert.workers.runs.votes_table import column
from smoothcert.workers.studies.measures import Kind, Loader, Studied

_LEAST_CLASSES = 4  # the targeted loss compares four logits
_TARGETS = 9  # classes that targeted APGD tries, as in AutoAttack

COLUMNS = pa.schema(
    [
        column("clean_prediction", pa.int32(), "Class of the whole image.", nullable=True),
        column("clean_right", pa.bool_(), "Whether that is the label.", nullable=True),
        column("robust", pa.bool_(), "Whether it is right and no attack changed it.", nullable=True),
        column("becomes", pa.int32(), "The class after the attack; null if it stands, or was wrong.", nullable=True),
        column("attack", pa.string(), "What changed it: apgd-ce, apgd-t, square, pgd or fgsm.", nullable=True),
        column("size", pa.float32(), "Size of the change; null if it stands, or was wrong.", nullable=True),
    ]
)

Attack = Callable[..., Tensor]
"""Right images [N, C, height, width], their labels [N] and `seed`, to changed images."""


class NormAttackMeasures:
    """Attacks whole images.

    Args:
        settings: how.
        loader: of the run's network.
    Raises:
        RequestError: the job has no labels.
    """

    def __init__(self, settings: NormAttack, loader: Loader) -> None:
        if loader.job.images.label is None:
            raise RequestError("images.label: null, but robust accuracy needs labels; name the member that holds them")
        self._settings, self._device, self._classes = settings, loader.device, loader.job.model.classes
        self._module = WholeImages(loader.network(), loader.job.preprocess, loader.device)
        self._attacked = Attacked(self._module, "Linf" if settings.norm == "linf" else "L2", settings.eps)

    @property
    def forwards(self) -> int:
        """Images computed so far."""
        return self._module.forwards

    def measure(self, images: Studied) -> list[dict[str, Any]]:
        """The columns of each image."""
        pixels = images.pixels.to(self._device).permute(0, 3, 1, 2).float() / 255
        labels = torch.tensor([-1 if label is None else label for label in images.labels], device=self._device)
        clean = self._classes_of(pixels)
        rows: list[dict[str, Any]] = [
            {"clean_prediction": int(now), "clean_right": bool(now == label), "robust": bool(now == label)}
            for now, label in zip(clean, labels, strict=True)
        ]
        standing = torch.nonzero(clean == labels)[:, 0]
        for name, attack in self._attacks():
            if not len(standing):
                break
            changed = attack(pixels[standing], labels[standing], seed=images.seeds[int(standing[0])])
            changed = self._inside(pixels[standing], changed)
            becomes = self._classes_of(changed)
            fell = becomes != labels[standing]
            sizes = _sizes(changed - pixels[standing], self._settings.norm)
            for place in torch.nonzero(fell)[:, 0].tolist():
                rows[int(standing[place])] |= {
                    "robust": False,
                    "becomes": int(becomes[place]),
                    "attack": name,
                    "size": float(sizes[place]),
                }
            standing = standing[~fell]
        return rows

    def _attacks(self) -> Iterator[tuple[str, Attack]]:
        """The attacks in order, by name."""
        chosen, attacked = self._settings, self._attacked
        steps, targets = chosen.steps, min(_TARGETS, self._classes - 1)
        match chosen.attack:
            case "fgsm":
                yield "fgsm", lambda images, labels, *, seed: attacked.fgsm(images, labels)  # noqa: ARG005
            case "pgd":
                yield "pgd", partial(attacked.pgd, steps=steps)
            case _:
                yield "apgd-ce", partial(attacked.apgd, steps=steps, restarts=chosen.restarts)
        if chosen.attack != "standard":
            return
        if self._classes >= _LEAST_CLASSES:
            yield "apgd-t", partial(attacked.apgd_targeted, steps=steps, targets=targets)
        yield "square", partial(attacked.square, queries=chosen.queries)

    @torch.inference_mode()
    def _classes_of(self, pixels_NCHW: Tensor) -> Tensor:
        return self._module(pixels_NCHW).argmax(dim=1)

    def _inside(self, pixels: Tensor, changed: Tensor) -> Tensor:
        """The changed images; those outside the ball, beyond rounding, as they were: a defect must not count."""
        flat, sizes = changed.flatten(1), _sizes(changed - pixels, self._settings.norm)
        inside = (sizes <= self._settings.eps * (1 + 1e-4)) & (flat >= 0).all(dim=1) & (flat <= 1).all(dim=1)
        return torch.where(inside[:, None, None, None], changed, pixels)


def _sizes(changes_NCHW: Tensor, norm: str) -> Tensor:
    flat = changes_NCHW.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


KIND = Kind(COLUMNS, needs_votes=False, measures=NormAttackMeasures)
