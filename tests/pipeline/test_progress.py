"""How many images a bar expects: exact in the end, a guess by bytes before, nothing before there is one."""

from hypothesis import given
from hypothesis import strategies as st

from manifests.shards import Shard
from pipeline.progress import _Expected
from workers.shard_task import ShardTask

SHARDS = st.lists(st.tuples(st.integers(1, 50), st.booleans(), st.booleans()), min_size=1, max_size=20)


@given(shards=SHARDS)
def test_the_guess_ends_in_the_truth(shards: list[tuple[int, bool, bool]]) -> None:
    """Shards that tell their number and shards that do not, some of which fail: at the end every image is counted."""
    todo = [
        ShardTask(index, Shard(f"{index}.tar", f"{index}.tar", 1000 * images, "", images if told else None), None)
        for index, (images, told, _) in enumerate(shards)
    ]
    expected = _Expected(todo)
    assert (expected.images() is None) == any(not told for _, told, _ in shards)
    for task, (images, _, fails) in zip(todo, shards, strict=True):
        expected.has(task, 0 if fails else images)
        if not any(fails for _, _, fails in shards) and expected.images() is not None:
            assert expected.images() == sum(images for images, _, _ in shards)  # bytes tell exactly here
    assert expected.images() == sum(images for images, _, fails in shards if not fails)
