"""Every error that smoothcert raises on purpose.

    SmoothcertError          printed without a traceback
    |-- RequestError         exit code 2: the job, an argument or the output is wrong
    |-- RunError             exit code 1: the request is fine, but the run cannot go on
    |   `-- ShardError       one tar cannot be certified whole; the others continue
    `-- ImageError           one image has no votes: it becomes a row with this status, and the run continues

A message says what was found, where, and what to do. Any other exception is a defect or a failing
machine and keeps its traceback. In an actor it counts as a failed attempt at the shard.
"""

from smoothcert.manifests.names import without_secrets


class SmoothcertError(Exception):
    """Base of all; its text is written for the user."""

    exit_code = 1

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class RequestError(SmoothcertError):
    """The job, an argument or the output is wrong."""

    exit_code = 2


class RunError(SmoothcertError):
    """The run cannot go on, though nothing is wrong with the request."""


class ShardError(RunError):
    """One tar cannot be certified whole, and another attempt would not help."""


class ImageError(SmoothcertError):
    """One image has no votes.

    Args:
        status: the value of the `status` column, such as `decode_error`.
        message: the value of the `error` column.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"
