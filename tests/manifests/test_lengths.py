import pytest
from pydantic import TypeAdapter, ValidationError

from smoothcert.manifests.lengths import Length


@pytest.mark.parametrize(("text", "value"), [("4/255", 4 / 255), ("0.03", 0.03), (0.5, 0.5), ("8 / 255", None)])
def test_fractions_are_read_as_people_write_them(text, value):
    read = TypeAdapter(Length).validate_python
    if value is None:
        with pytest.raises(ValidationError, match="should be a number, or a fraction such as 4/255"):
            read(text)
    else:
        assert read(text) == value


@pytest.mark.parametrize("wrong", ["4/0", "much", "-1/255", 0])
def test_other_texts_are_refused(wrong):
    with pytest.raises(ValidationError):
        TypeAdapter(Length).validate_python(wrong)
