"""Our errors have exit codes and survive the way between processes."""

import pickle

import pytest

from smoothcert.manifests.errors import ImageError, RequestError, RunError, ShardError, SmoothcertError


@pytest.mark.parametrize(
    "error",
    [SmoothcertError("a"), RequestError("a"), RunError("a"), ShardError("a"), ImageError("decode_error", "a")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_in_another_process(error: SmoothcertError) -> None:
    """Ray and process pools send errors as pickles: type, text and fields stay."""
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert str(there) == str(error)
    assert vars(there) == vars(error)


def test_exit_code_is_2_for_a_wrong_request_and_1_for_all_else() -> None:
    """A shard's error is a run's error, so the same handlers take it."""
    codes = {kind.__name__: kind.exit_code for kind in (SmoothcertError, RequestError, RunError, ShardError)}
    assert codes == {"SmoothcertError": 1, "RequestError": 2, "RunError": 1, "ShardError": 1}
    assert issubclass(ShardError, RunError)


def test_the_text_of_an_image_error_has_its_status() -> None:
    """A log line about a single image says what a row would."""
    assert str(ImageError("too_large", "900 megapixels")) == "too_large: 900 megapixels"


def test_no_error_shows_the_key_of_a_signed_url() -> None:
    """Whoever may read the line could read the file."""
    assert str(RequestError("https://me:KEY@h/a.tar?sig=KEY: refused")) == "https://h/a.tar?...: refused"
