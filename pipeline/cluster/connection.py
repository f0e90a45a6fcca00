"""Join the Ray cluster of this machine, or start Ray here.

Not covered: the checks before that (ray_start.py); what the cluster has (resources.py).
"""

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import ray
from ray.job_config import JobConfig

from smoothcert.manifests.errors import RequestError
from smoothcert.pipeline.cluster import ray_start
from smoothcert.pipeline.cluster.ray_errors import describe


def connect(say: Callable[[str], None] = print) -> None:
    """Join the cluster of this machine, or start Ray here.

    Args:
        say: takes a notice if Ray's temporary files go to an unusual folder.
    Raises:
        RequestError: neither is possible; the text says why.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; without it Ray warns
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to others
    ray_start.silence_warnings()
    found = ray_start.find_cluster()
    here = {}
    if found is None:
        here = {"address": "local", "_temp_dir": str(ray_start.temporary_folder(say))}
        # Without a token Ray writes ~/.ray/auth_token, and every later `ray start --head` asks its users for it.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.pop("RAY_REDIS_ADDRESS", None)  # it names the state of a cluster's head, which is not this Ray's
    else:
        ray_start.check_cluster(found)
    try:
        ray.init(
            job_config=_DriversCode(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            configure_logging=True,
            **here,
        )
    except Exception as error:  # Ray raises errors of any class, even Exception itself
        ray.shutdown()
        doing = f"cannot join the Ray cluster at {found}" if found else "Ray cannot start here"
        raise RequestError(f"{doing}: {describe(error)}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own handler would drop unfinished work


class _DriversCode(JobConfig):  # type: ignore[misc]
    """Makes actors import the code of the driver. Ray alone would search the current folder first."""

    def _serialize(self) -> bytes:
        house = str(Path(__file__).absolute().parents[3])  # holds smoothcert
        of_driver = [path for path in self._py_driver_sys_path if path in sys.path]
        self._py_driver_sys_path: list[str] = [*of_driver, house]  # the last is the first to be searched
        return super()._serialize()
