"""How a network votes: what an engine must know beside the network, its ablations and its pixels."""

from dataclasses import dataclass, replace
from typing import Self

from smoothcert.manifests.job import Network


@dataclass(frozen=True)
class Format:
    """The format of a network and of its votes.

    Attributes:
        name: of the network, for messages.
        classes: K, number of classes.
        keep_hidden: whether hidden tokens are computed, too.
        dtype: number format of a transformer's blocks, or of all but the last layer; as in a job.
    """

    name: str
    classes: int
    keep_hidden: bool
    dtype: str = "float32"

    @classmethod
    def of(cls, network: Network, dtype: str = "float32") -> Self:
        """The format of the network of a job or a training.

        Args:
            network: of either file.
            dtype: of the job.
        """
        options = f" with options {network.options}" if network.options else ""
        return cls(network.architecture + options, network.classes, network.masked_tokens == "keep", dtype)

    def in_float32(self) -> Self:
        """The same in float32, where an engine and timm differ only by rounding."""
        return replace(self, dtype="float32")
