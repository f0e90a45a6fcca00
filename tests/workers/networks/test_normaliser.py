"""A normaliser beside a network is found by its names and compared with the job's mean and std."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Preprocess
from smoothcert.workers.networks.normaliser import check_normalisers, normalisers, saved_normaliser

_JOB = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_MEAN, _STD = torch.tensor(_JOB.mean), torch.tensor(_JOB.std)

_NAMES = [
    ("normalize.mean", "normalize.std"),
    ("preprocess.mean", "preprocess.std"),
    ("0.mean", "0.std"),
    ("norm.mean", "norm.std"),
    ("module.data_normalizer.mean", "module.data_normalizer.std"),
    ("mean", "std"),
    ("pixel_mean", "pixel_std"),
    ("model.mu", "model.sigma"),
    ("module.normalizer.new_mean", "module.normalizer.new_std"),
]
_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda numbers: numbers,
    "one image": lambda numbers: numbers[None, :, None, None],
    "channels first": lambda numbers: numbers[:, None, None],
    "from 0 to 255": lambda numbers: numbers * 255,
    "float16": lambda numbers: numbers.half(),
    "bfloat16, from 0 to 255": lambda numbers: (numbers * 255).bfloat16(),
}


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("names", _NAMES)
def test_the_mean_and_std_of_the_job_are_accepted(names: tuple[str, str], form: str) -> None:
    """Names, shape, unit and number format do not matter."""
    tensors = dict(zip(names, map(_FORMS[form], (_MEAN, _STD)), strict=True))
    assert normalisers(tensors, 3).keys() == tensors.keys()
    check_normalisers(tensors, _JOB, "FILE")
    saved = saved_normaliser(tensors, 3)
    assert saved["mean"] == pytest.approx(_JOB.mean, abs=2e-3)
    assert saved["std"] == pytest.approx(_JOB.std, abs=2e-3)


@given(
    mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    std=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    unit=st.sampled_from([1, 255]),
)
def test_a_pair_is_accepted_if_it_normalises_alike(mean: list[float], std: list[float], unit: int) -> None:
    """Black and white become the same numbers. A job that is set to what the error says accepts the pair."""
    tensors = {"n.mean": torch.tensor(mean) * unit, "n.std": torch.tensor(std) * unit}
    if unit == 255 and max(mean + std) * 255 <= 2:  # as dark as this could be either unit
        return
    there = (torch.tensor([[0.0], [1.0]]) - torch.tensor(mean)) / torch.tensor(std)
    here = (torch.tensor([[0.0], [1.0]]) - _MEAN) / _STD
    job = _JOB
    for _ in range(3):
        try:
            check_normalisers(tensors, job, "FILE")
        except RequestError as error:
            key, said = str(error).split(":")[0].removeprefix("preprocess."), str(error).rpartition("set it to ")[2]
            job = job.model_copy(update={key: tuple(float(each) for each in said.strip("[]").split(","))})
        else:
            break
    else:
        pytest.fail("what the line says is refused, too")
    assert job != _JOB or torch.allclose(there, here, atol=0.1)


def test_mean_and_std_have_the_same_unit() -> None:
    """Caffe subtracts a mean from 0 to 255 and divides by one, which is 1 / 255 in the job's unit."""
    caffe = {"n.mean": torch.tensor([123.675, 116.28, 103.53]), "n.std": torch.ones(3)}
    with pytest.raises(RequestError, match=r"^preprocess\.std: .*set it to \[0.003922, 0.003922, 0.003922\]$"):
        check_normalisers(caffe, _JOB, "FILE")
    check_normalisers(caffe, _JOB.model_copy(update={"std": (1 / 255,) * 3}), "FILE")


@pytest.mark.parametrize("numbers", [torch.tensor(0.5), torch.tensor([0.5]), torch.full((1, 3, 1, 1), 0.5)])
def test_one_number_holds_for_all_channels(numbers: Tensor) -> None:
    """It is compared with each of the job's numbers."""
    tensors = {"n.mean": numbers, "n.std": numbers}
    half = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert normalisers(tensors, 3).keys() == tensors.keys()
    check_normalisers(tensors, half, "FILE")
    with pytest.raises(RequestError, match=r"set it to \[0.5, 0.5, 0.5\]$"):
        check_normalisers(tensors, _JOB, "FILE")


@pytest.mark.parametrize(
    "tensors",
    [
        {"n.mean": _MEAN},  # no pair
        {"n.mean": _MEAN, "other.std": _STD},
        {"n.running_mean": _MEAN, "n.running_var": _STD},  # of batch norm
        {"n.mean": torch.ones(4), "n.std": torch.ones(4)},
        {"n.mean": torch.ones(1).expand(10**8), "n.std": _STD},
    ],
)
def test_other_tensors_are_not_a_normaliser(tensors: dict[str, Tensor]) -> None:
    """A single name, another count of numbers, or the statistics of a layer."""
    assert not normalisers(tensors, 3)
