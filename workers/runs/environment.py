"""What makes votes besides code and weights: versions, decoder and device, as every file of votes records them."""

import json
from collections.abc import Mapping
from typing import Any

ENVIRONMENT = ("versions", "decoder", "device")
"""Keys of a file's metadata that say what made it."""


def environment_of(metadata: Mapping[str, Any]) -> str:
    """What made a file, or what an actor is, in one comparable line."""
    return json.dumps({key: metadata.get(key) for key in ENVIRONMENT}, sort_keys=True)
