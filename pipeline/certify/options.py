"""What a user may say about a certification besides the job. Light: loads nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options of `smoothcert certify` and of all that certifies.

    Attributes:
        strict_versions: refuse actors whose versions or devices differ from each other's or from those of the
            published files.
        unsafe_overwrite: go on although the storage does not refuse to overwrite.
        allow_code: whether code that a job names may run.
        adopt_across: whether shards may be taken over from runs of other versions or devices.
    """

    strict_versions: bool = False
    unsafe_overwrite: bool = False
    allow_code: bool = False
    adopt_across: bool = False


NO_OPTIONS = Options()
