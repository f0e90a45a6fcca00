"""Models take turns if their weights need more than half of an actor's memory."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from smoothcert.pipeline.certify.turns import turns_in_words, turns_of

GIB = 2**30
MODELS = st.dictionaries(st.text("abc-_1", min_size=1, max_size=4), st.integers(0, 40), max_size=12)
MEMORY = st.integers(1, 100)


@given(weights=MODELS, memory=MEMORY)
def test_every_model_has_one_turn_that_has_room_for_it(weights: dict[str, int], memory: int) -> None:
    """In the order of the suite; a turn is above half the memory only if it has one model."""
    turns = turns_of(weights, memory)
    assert sorted(chain.from_iterable(turns)) == sorted(weights)
    assert all(turns)
    order = list(weights)
    for turn in turns:
        assert turn == sorted(turn, key=order.index)
        assert len(turn) == 1 or 2 * sum(weights[name] for name in turn) <= memory
    assert [turn[0] for turn in turns] == sorted((turn[0] for turn in turns), key=order.index)


@given(weights=MODELS, memory=MEMORY)
def test_no_turn_could_take_the_first_model_of_a_later_one(weights: dict[str, int], memory: int) -> None:
    """A turn costs a pass over all shards, so none is begun without need."""
    turns = turns_of(weights, memory)
    for number, turn in enumerate(turns):
        for later in turns[number + 1 :]:
            assert 2 * (sum(weights[name] for name in turn) + weights[later[0]]) > memory


@given(weights=MODELS, memory=MEMORY)
def test_models_have_one_turn_if_and_only_if_they_fit_together(weights: dict[str, int], memory: int) -> None:
    """A single model always does."""
    fit = len(weights) == 1 or 2 * sum(weights.values()) <= memory
    assert (turns_of(weights, memory) == [list(weights)]) == (fit and bool(weights))


def test_examples() -> None:
    """By hand, of an actor with 10."""
    assert turns_of({}, 10) == []
    assert turns_of({"a": 2, "b": 3}, 10) == [["a", "b"]]
    assert turns_of({"a": 2, "b": 4}, 10) == [["a"], ["b"]]
    assert turns_of({"a": 3, "b": 4, "c": 2, "d": 1}, 10) == [["a", "c"], ["b", "d"]]
    assert turns_of({"a": 6, "b": 1, "c": 30}, 10) == [["a"], ["b"], ["c"]]


def test_turns_are_told_to_the_user() -> None:
    """What does not fit, which key says how much there is, and who votes when."""
    weights = {"a": 3 * GIB, "b": 4 * GIB, "c": 2 * GIB}
    assert list(turns_in_words(turns_of(weights, 10 * GIB), weights, 10 * GIB)) == [
        "the weights of all models, 9 GiB, do not fit 50% of an actor's memory, 10 GiB (execution.memory_gib), so the "
        "models take turns; each turn fetches and decodes the shards again",
        "turn 1 of 2: a, c",
        "turn 2 of 2: b",
    ]


def test_one_turn_or_none_is_no_news() -> None:
    """Nor is a single model that is too large: it has no other to wait for."""
    for weights in ({}, {"a": 1}, {"a": 100 * GIB}, {"a": 1, "b": 2}):
        assert list(turns_in_words(turns_of(weights, 10 * GIB), weights, 10 * GIB)) == []
