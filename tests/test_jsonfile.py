"""JSON whose quick check must not be deceived."""

import math

import pytest

from mia_bench import jsonfile
from mia_bench.jsonfile import parse_object


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' + b'["]",' * 300 + b"1" + b"]" * 300 + b"}",
        b'{"a":' + b'["[",' * 300 + b"1" + b',"]"]' * 300 + b"}",
        b'{"a":1' + b"0" * 250 + b".0e99}",
        b'{"a":-1' + b"0" * 309 + b".0}",
        b'{"a":1e400}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\"","b":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_what_cannot_be_written_again_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"more than|too large|surrogates"):
        parse_object(text)


def test_brackets_and_exponents_in_strings_are_words() -> None:
    assert parse_object(b'{"a":"e123 [[[","b":1e-05,"c":"\\"]"}') == {"a": "e123 [[[", "b": 1e-05, "c": '"]'}


@pytest.mark.parametrize(
    "content",
    [
        {"b": [1.5, None, {"c": "é☃"}], "a": 1e-7, "sha256": "an older one"},
        {"value": math.nan, "name": "half a character \ud800"},
        {"name": "\U0001f600"},
    ],
)
def test_the_text_of_a_sealed_object_is_that_of_the_object(content: dict[str, object]) -> None:
    text = jsonfile.sealed_text(content)
    assert text == jsonfile.file_text(jsonfile.seal(content))
    assert jsonfile.seal_holds(jsonfile.parse_object(text.encode()))
