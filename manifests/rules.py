"""What can be claimed of a prediction, in the words that queries use.

The rules themselves: workers/certificates/families.py.
"""

from enum import StrEnum
from typing import NamedTuple


class RuleName(StrEnum):
    exact = "exact"
    """Certifies all that can be certified from the votes, but for cases that docs/certificates.md names."""
    margin = "margin"
    """The published rule for columns, rows and blocks, made sound."""
    published = "published"
    """The published rule for masks: all votes agree."""


class Certificate(StrEnum):
    recovery = "recovery"
    """The prediction cannot change."""
    detection = "detection"
    """The class of the whole image cannot change without an alarm."""


class Subject(StrEnum):
    prediction = "prediction"
    """The predicted class."""
    label = "label"
    """The class that is the image's label."""


class Claim(NamedTuple):
    """What is claimed of an image, whatever patches show.

    Attributes:
        certificate: what cannot happen.
        rule: by which this is decided.
        top: the subject stays among so many classes with the most votes.
        of: the subject.
        alarm_below: for detection, a mask whose margin is smaller raises an alarm.
    """

    certificate: Certificate = Certificate.recovery
    rule: RuleName = RuleName.exact
    top: int = 1
    of: Subject = Subject.prediction
    alarm_below: float = 0.0
