"""What several benchmarks take on their command lines."""

from smoothcert.manifests.job import Ablation


def ablation_of(text: str) -> Ablation:
    """The ablation that KIND:SIZE:STRIDE names, in pixels."""
    kind, size, stride = text.split(":")
    return Ablation.model_validate({"kind": kind, "size": int(size), "stride": int(stride)})
