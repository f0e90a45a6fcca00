"""Which models of a suite vote together, and which take turns because their weights do not fit one actor.

Pure. Not covered: how much memory an actor has (actor.py).
"""

from collections.abc import Iterator, Mapping, Sequence

_SHARE_OF_WEIGHTS = 0.5  # of an actor's memory; images, activations and the library take the rest
_GIB = 2**30


def turns_of(weights: Mapping[str, int], memory: int) -> list[list[str]]:
    """Put each model into the first turn that has room for it. A model that is too large has a turn of its own.

    Args:
        weights: bytes of each model's file, by its name.
        memory: bytes of one actor.
    """
    turns: list[list[str]] = []
    for name, size in weights.items():
        for turn in turns:
            if size + sum(weights[other] for other in turn) <= _SHARE_OF_WEIGHTS * memory:
                turn.append(name)
                break
        else:
            turns.append([name])
    return turns


def turns_in_words(turns: Sequence[Sequence[str]], weights: Mapping[str, int], memory: int) -> Iterator[str]:
    """What the user must know about the turns, a line each; arguments as for `turns_of`."""
    if len(turns) <= 1:
        return
    total = sum(weights.values()) / _GIB
    yield (
        f"the weights of all models, {total:.3g} GiB, do not fit {_SHARE_OF_WEIGHTS:.0%} of an actor's memory, "
        f"{memory / _GIB:.3g} GiB (execution.memory_gib), so the models take turns; each turn fetches and decodes the "
        "shards again"
    )
    for number, turn in enumerate(turns, start=1):
        yield f"turn {number} of {len(turns)}: {', '.join(turn)}"
