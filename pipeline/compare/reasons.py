"""The reasons for which runs cannot be compared. They are apart so that `smoothcert --help` loads nothing else.

Not covered: when there is a reason (comparable.py).
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why two runs cannot be compared."""

    unfinished = "unfinished"
    """A run has no _SUCCESS, or lacks files."""
    images = "images"
    """The runs have other tars, other image suffixes, another limit, another version of the data, or a tar changed."""
    labels = "labels"
    """Labels come from another member or count from another number, or an image has another label."""
    classes = "classes"
    """The models have different numbers of classes, so a class may mean something else."""
    preprocessing = "preprocessing"
    """The networks see other pixels of the same image."""
    threat = "threat"
    """The certified frames have different sizes, so a patch covers another share of the image; or one run has masks and
    the other none, or masks for another threat."""
