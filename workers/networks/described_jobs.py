"""Files whose checkpoint describes itself: `model: {checkpoint: hf-hub:OWNER/NAME}` says it all.

If a job, an entry of a suite or a training names no architecture, and its checkpoint is a folder or a repository of
the hub with a config.json of transformers, all settings that follow from it are added to the file's content, as if
they were written there. What the file itself says about the pixels wins. What it says about the network must agree.

Not covered: what the configs mean (transformers_config.py).
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from smoothcert.manifests import job as job_file
from smoothcert.manifests import suite as suite_file
from smoothcert.manifests import training as training_file
from smoothcert.manifests.errors import RequestError
from smoothcert.manifests.job import Job
from smoothcert.manifests.names import listed, one_line
from smoothcert.manifests.suite import Suite
from smoothcert.manifests.training import Training
from smoothcert.workers.extras import needs_certify
from smoothcert.workers.networks.checkpoint_files import in_folder
from smoothcert.workers.networks.transformers_config import KEYS, model_settings, pixel_settings
from smoothcert.workers.storage import hub

_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
_FETCH = Callable[[str], Path | None]


@needs_certify
def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file, and the settings that its checkpoint gives.

    Args:
        path: a YAML file.
        overrides: `key.path=value` each, the value as YAML; later ones win.
    Raises:
        RequestError: a line for each mistake, with file, key path, value and remedy.
    """
    return job_file.load_job(path, overrides, complete=partial(complete, learns=False))


def load_training(path: str | Path, overrides: Sequence[str] = ()) -> Training:
    """Read a training file, and the settings that its checkpoint gives; arguments and errors as for `load_job`."""
    return training_file.load_training(path, overrides, complete=partial(complete, learns=True))


@needs_certify
def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file, and the settings that the checkpoint of each entry gives.

    Args:
        path: a YAML file.
        overrides: `key.path=value` each, the value as YAML; later ones win. `entries.NAME.KEY` is a key of an entry.
    Raises:
        RequestError: a line for each mistake, with file, entry, key path, value and remedy.
    """
    return suite_file.load_suite(path, overrides, complete=partial(complete, learns=False))


def load_job_or_suite(path: str | Path, overrides: Sequence[str] = ()) -> Job | Suite:
    """Read a file that is a suite if it has the key `entries`, else a job; arguments and errors as for both."""
    return (load_suite if suite_file.is_suite(path) else load_job)(path, overrides)


def complete(content: dict[str, Any], *, learns: bool) -> None:
    """Add the settings that the checkpoint gives.

    Args:
        content: of the file; it is changed.
        learns: whether it is a training file, whose network may get a head for other classes.
    Raises:
        RequestError: the checkpoint has a config that cannot be used, or the file contradicts it.
    """
    model, pixels = content.get("model"), content.get("preprocess", {})
    if not isinstance(model, dict) or "architecture" in model or not isinstance(pixels, dict):
        return
    checkpoint = model.get("checkpoint")
    if not isinstance(checkpoint, str) or (found := _configs_of(checkpoint)) is None:
        return
    place, fetch = found
    settings = model_settings(_read(fetch, _CONFIG, place), f"{place}/{_CONFIG}")
    names = settings.pop("class_names")
    if "options" in model:
        raise RequestError(
            f"model.options: they follow from {place}/{_CONFIG}; leave them out, or write model.architecture, too"
        )
    if learns:
        if model.get("classes", settings["classes"]) != settings["classes"]:
            settings["checkpoint_classes"] = settings["classes"]
    else:
        _refuse_other_classes(model, settings["classes"], place)
        settings["class_names"] = names
    content["model"] = settings | model | {"checkpoint": weights_of(checkpoint)}
    content["preprocess"] = _pixels_of(pixels, fetch, place, settings["options"].get("in_chans", 3))


def config_of(checkpoint: str) -> dict[str, Any] | None:
    """The config.json of a checkpoint; None if there is none.

    Args:
        checkpoint: a name of the hub, or the absolute path of a file or a folder.
    Raises:
        RequestError: it cannot be read.
    """
    found = _configs_of(checkpoint)
    return None if found is None else _read(found[1], _CONFIG, found[0])


def _configs_of(checkpoint: str) -> tuple[str, _FETCH] | None:
    """The folder or the repository of a checkpoint, and a function that fetches a file of it, None if it is not there.

    The result is None if there is no config.json.
    """
    if hub.is_hub_name(checkpoint):
        fetch: _FETCH = partial(hub.fetch_if_there, checkpoint)
        return (checkpoint, fetch) if fetch(_CONFIG) is not None else None
    if "://" in checkpoint:
        return None
    folder = Path(checkpoint) if Path(checkpoint).is_dir() else Path(checkpoint).parent
    if not (folder / _CONFIG).is_file():
        return None
    return str(folder), lambda name: folder / name if (folder / name).is_file() else None


def _read(fetch: _FETCH, name: str, place: str) -> dict[str, Any]:
    """A config, or an empty one if there is none."""
    path = fetch(name)
    if path is None:
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            f"model.checkpoint: {place}/{name} cannot be read ({one_line(error)}); fetch it again"
        ) from None
    if not isinstance(content, dict):
        raise RequestError(f"model.checkpoint: {place}/{name} is no JSON object; fetch it again")
    return content


def _refuse_other_classes(model: dict[str, Any], classes: int, place: str) -> None:
    if model.get("classes", classes) != classes:
        raise RequestError(
            f"model.classes: {model['classes']} is not what {place}/{_CONFIG} says, {classes}; leave it out"
        )


def weights_of(checkpoint: str) -> str:
    """The file of weights: the checkpoint itself, or the one in its folder.

    Raises:
        RequestError: the folder has none.
    """
    folder = Path(checkpoint)
    if hub.is_hub_name(checkpoint) or not folder.is_dir():
        return checkpoint
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    if hub.WEIGHTS in files:
        return str(folder / hub.WEIGHTS)
    if hub.PICKLED in files:
        raise RequestError(
            f"model.checkpoint: {folder} has only pickled weights; `smoothcert import-checkpoint {folder / hub.PICKLED}"
            f" --output {folder / hub.WEIGHTS}` converts them and runs nothing in them"
        )
    weights = [name for name in files if name not in (_CONFIG, _PROCESSOR)]
    raise RequestError(
        f"model.checkpoint: {folder} has no {hub.WEIGHTS}; {in_folder(str(folder), weights, 'write model.checkpoint:')}"
    )


def _pixels_of(written: dict[str, Any], fetch: _FETCH, place: str, channels: int) -> dict[str, Any]:
    """`preprocess` with the settings that the processor gives and the file does not."""
    missing = [key for key in KEYS if key not in written]
    if not missing:
        return written
    content = _read(fetch, _PROCESSOR, place)
    if not content:
        raise RequestError(
            f"model.checkpoint: {place} has no {_PROCESSOR}, so write what the network sees: "
            f"preprocess.{listed(missing)}"
        )
    settings, unclear = pixel_settings(content, f"{place}/{_PROCESSOR}", channels)
    for key in missing:
        if key in unclear:
            raise RequestError(f"preprocess.{key}: missing, and {unclear[key]}; write it")
    other_crop = written.get("crop", settings.get("crop")) != settings.get("crop") or "upsample" in written
    if "resize" in missing and "crop" in settings and other_crop:
        raise RequestError(
            f"preprocess.resize: {place}/{_PROCESSOR} gives one for a crop of {settings['crop']}; write it, too"
        )
    if "resize" in written:
        settings.pop("squash", None)
    return settings | written
