"""Networks from a user's own code: `architecture: "python:package.module:factory"`.

The factory is called as a builder of timm: `factory(num_classes=..., img_size=..., **options)`. It returns a
VisionTransformer of timm, whose hidden tokens can be left out, or any other torch module that turns images
[n, channels, side, side] into logits [n, classes].

Importing a module runs code that a job names, so this is done only if the user allows it (--allow-code).
Not covered: the weights, which come from the checkpoint as for any network (classifiers.py).
"""

import importlib
from typing import Any

from torch import nn

from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import CODE_PREFIX, Network
from smoothcert.manifests.names import one_line


def network_from_code(model: Network, side: int) -> nn.Module:
    """Import the factory and call it.

    Args:
        model: its architecture starts with CODE_PREFIX.
        side: of the network's images, in pixels.
    Raises:
        RequestError: the factory cannot be imported or called, or returns no module.
    """
    module_name, _, name = model.architecture.removeprefix(CODE_PREFIX).partition(":")
    try:
        factory: Any = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # the code may raise anything
        raise RequestError(
            f"model.architecture: {model.architecture} cannot be imported here ({_described(error)}); install its "
            "package on every machine, or put its folder into PYTHONPATH"
        ) from None
    try:
        network = factory(num_classes=model.classes, img_size=side, **model.options)
    except Exception as error:
        raise RequestError(
            f"model.architecture: {model.architecture} failed for {model.classes} classes, {side} pixels and options "
            f"{model.options}: {_described(error)}"
        ) from None
    if not isinstance(network, nn.Module):
        raise RequestError(
            f"model.architecture: {model.architecture} returned a {type(network).__name__}; return a torch module"
        )
    return network


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
