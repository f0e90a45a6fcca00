"""What an engine must know beside the network."""

from smoothcert.manifests.job import Model
from smoothcert.manifests.training import TrainedModel
from smoothcert.workers.votes.format import Format

_NETWORK = {"architecture": "vit_tiny_patch16_224", "classes": 7, "masked_tokens": "keep"}


def test_a_job_and_a_training_of_one_network_have_one_format() -> None:
    """Only a job has a number format; a training validates in float32."""
    job = Model.model_validate(_NETWORK | {"checkpoint": "file", "dtype": "bfloat16"})
    trained = TrainedModel.model_validate(_NETWORK)
    assert Format.of(job, job.dtype) == Format("vit_tiny_patch16_224", 7, keep_hidden=True, dtype="bfloat16")
    assert Format.of(job, job.dtype).in_float32() == Format.of(trained)


def test_messages_name_the_options() -> None:
    """Two networks of one architecture differ by their options."""
    trained = TrainedModel.model_validate(_NETWORK | {"options": {"depth": 2}})
    assert Format.of(trained).name == "vit_tiny_patch16_224 with options {'depth': 2}"
