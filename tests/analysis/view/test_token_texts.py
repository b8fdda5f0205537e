"""Texts of single tokens: their concatenation is the decoded text for any split of characters and spaces."""

import pytest

from fireopd.analysis.view.token_texts import decode_tokens
from fireopd.models.loading import load_tokenizer


class Bytes:
    """Tokenizer of single bytes."""

    def decode(self, tokens, **_):
        return bytes(tokens).decode("utf-8", errors="replace")


class LeadingSpaces:
    """Tokenizer that strips a leading space, as many do."""

    words = (" one", " two", "-and", " three")

    def decode(self, tokens, **_):
        return "".join(self.words[token] for token in tokens).removeprefix(" ")


@pytest.mark.parametrize("text", ["plain", "naïve → 日本 🜁!", "🜁", "", "日", "a\nb"])
def test_of_a_character_of_several_tokens_the_last_has_it_all(text):
    tokens = list(text.encode())
    found = decode_tokens(Bytes(), tokens)
    assert len(found) == len(tokens)
    assert "".join(found) == text
    assert [piece for piece in found if piece] == list(text)


def test_a_character_that_is_cut_off_is_shown_as_what_it_is():
    assert decode_tokens(Bytes(), list("a🜁".encode())[:3]) == ["a", "", "\ufffd"]


def test_bytes_that_are_no_text_hold_nothing_up():
    found = decode_tokens(Bytes(), [0xFF] * 9 + [65])
    assert "".join(found).count("\ufffd") == 9
    assert found[-1].endswith("A")


def test_spaces_between_tokens_stay():
    assert decode_tokens(LeadingSpaces(), [0, 1, 2, 3, 0]) == ["one", " two", "-and", " three", " one"]


def test_the_embedded_tokenizer():
    tokenizer = load_tokenizer("tiny/student", "x")
    tokens = tokenizer.encode("7;+5;*2")
    assert "".join(decode_tokens(tokenizer, tokens)) == tokenizer.decode(tokens)
