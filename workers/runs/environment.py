"""What a machine votes with besides code and weights: versions, decoder and device, as every file records them.

Not covered: how they are found (votes/machine.py).
"""

import json
from collections.abc import Mapping
from typing import Any

ENVIRONMENT = ("versions", "decoder", "device")
"""Keys of a file's metadata that together are its environment."""


def environment_of(metadata: Mapping[str, Any]) -> str:
    """The environment in the metadata of a file, or of an actor, as one line that can be compared."""
    return json.dumps({key: metadata.get(key) for key in ENVIRONMENT}, sort_keys=True)
