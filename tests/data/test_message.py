import pytest

from ownlm.data.message import ImagePart, Message, TextPart


def test_a_message_comes_back_from_json() -> None:
    message = Message("user", (TextPart("look: "), ImagePart("http://example.org/a.png"), TextPart("größer 🙂")))
    assert Message.from_json(message.to_json()) == message
    assert Message.from_json({"role": "user", "content": "hi"}) == Message.of("user", "hi")


def test_text_joins_the_parts_and_refuses_images() -> None:
    assert Message("user", (TextPart("a"), TextPart("b"))).text == "ab"
    with pytest.raises(ValueError, match="'image' cannot be read as text"):
        _ = Message("user", (TextPart("a"), ImagePart("x"))).text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"role": "boss", "content": "x"}, "role must be one of system, user, assistant, tool, not 'boss'"),
        ({"content": "x"}, "role must be one of"),
        ({"role": "user", "content": 3}, "content must be a string or a list"),
        ({"role": "user"}, "content must be a string or a list"),
        ({"role": "user", "content": ["x"]}, "unknown content part 'x'"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "unknown content part"),
        ({"role": "user", "content": [{"type": "video", "url": "x"}]}, "unknown content part"),
    ],
)
def test_what_is_no_message(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Message.from_json(data)
