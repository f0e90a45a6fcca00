"""The names of a run's files, relative to the run's folder.

    OUTPUT/RUN_ID/run.json                    the job, its identity, the shards; written first, once
    OUTPUT/RUN_ID/votes/00000-NAME.parquet    one file per shard, published once, whole
    OUTPUT/RUN_ID/_SUCCESS                    figures and the SHA-256 of every file; written last
    OUTPUT/RUN_ID/introduction.json           the first actor's answer for one image; all others must give the same
    OUTPUT/RUN_ID/drivers/                    what each driver did, shard by shard
    OUTPUT/RUN_ID/studies/STUDY_ID/           what else was measured about its images (workers/studies/study.py)
    OUTPUT/RUN_ID/quarantine/                 damaged files that `smoothcert repair` moved away
    OUTPUT/RUN_ID/pruned.json                 what run.json was, of a run that `smoothcert prune` is deleting

Not covered: what these files hold (records.py, votes_table.py).
"""

import re

RUN_JSON = "run.json"
SUCCESS = "_SUCCESS"
INTRODUCTION = "introduction.json"
VOTES = "votes"
DRIVERS = "drivers"
STUDIES = "studies"
QUARANTINE = "quarantine"
PRUNED = "pruned.json"
INCOMING = ".incoming"
"""Holds files of a folder while they are written."""

_OF_A_RUN = re.compile(
    rf"({QUARANTINE}/[^/]+/)?(run\.json|{SUCCESS}|introduction\.json|pruned\.json|{VOTES}/\d{{5,}}-[^/]*\.parquet"
    rf"|{DRIVERS}/[^/]+\.jsonl|{STUDIES}/[0-9a-f]+/(study\.json|{SUCCESS}|rows/\d{{5,}}-[^/]*\.parquet))|{INCOMING}/[0-9a-f]{{32}}"
)


def is_of_a_run(name: str) -> bool:
    """Whether smoothcert writes files of this name, relative to the run; others are the user's."""
    return _OF_A_RUN.fullmatch(name) is not None


def votes_file(index: int, shard: str) -> str:
    """The name of a shard's file of votes.

    Args:
        index: position of the shard in the run, from 0.
        shard: base name of the tar.
    """
    return f"{VOTES}/{index:05d}-{shard.removesuffix('.tar')}.parquet"
