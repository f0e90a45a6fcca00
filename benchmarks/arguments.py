"""What several benchmarks take on their command lines."""

from smoothcert.manifests import ablation
from smoothcert.manifests.ablation import Ablation


def ablation_of(text: str) -> Ablation:
    """The ablation that KIND:SIZE:STRIDE names, such as column:19:1, or mask:THREAT:PER_AXIS with black masks."""
    kind, size, number = text.split(":")
    if kind == "mask":
        return ablation.ablation_of({"kind": kind, "threat": int(size), "per_axis": int(number), "fill": "black"})
    return ablation.ablation_of({"kind": kind, "size": int(size), "stride": int(number)})
