import pytest

from ownlm.data.message import ImagePart, Message, TextPart, ToolCall


def test_a_message_comes_back_from_json() -> None:
    message = Message("user", (TextPart("look: "), ImagePart("http://example.org/a.png"), TextPart("größer 🙂")))
    assert Message.from_json(message.to_json()) == message
    assert Message.from_json({"role": "user", "content": "hi"}) == Message.of("user", "hi")


def test_tool_calls_and_their_results_come_back_from_json() -> None:
    call = ToolCall("weather", '{"city": "Zürich", "days": 2.0}', "abc")
    messages = [
        Message("assistant", (), (call, ToolCall("time")), reasoning="Look outside."),
        Message("tool", (TextPart("sunny"),), name="weather", tool_call_id="abc"),
        Message("assistant", (TextPart(""),), (call,)),
    ]
    for message in messages:
        assert Message.from_json(message.to_json()) == message
    assert messages[0].to_json() == {
        "role": "assistant",
        "content": [],
        "tool_calls": [
            {
                "id": "abc",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Zürich", "days": 2.0}'},
            },
            {"type": "function", "function": {"name": "time", "arguments": "{}"}},
        ],
        "reasoning_content": "Look outside.",
    }
    assert Message.of("user", "hi").to_json() == {"role": "user", "content": [{"type": "text", "text": "hi"}]}
    assert len({messages[0], Message.from_json(messages[0].to_json())}) == 1


def test_calls_as_others_write_them() -> None:
    function = {"name": "weather", "arguments": {"city": "Zürich", "days": 2.0}}
    expected = ToolCall("weather", '{"city": "Zürich", "days": 2.0}')
    for call in (function, {"type": "function", "function": function}):
        message = Message.from_json({"role": "assistant", "content": None, "tool_calls": [call]})
        assert message == Message("assistant", (), (expected,))
    assert Message.from_json({"role": "user", "content": "x", "tool_calls": None, "name": None}) == Message.of(
        "user", "x"
    )


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
        ({"role": "user", "content": "x", "tool_calls": {}, "name": 3}, "name must be a string"),
        ({"role": "assistant", "tool_calls": {"a": 1}}, "tool_calls must be a list"),
        ({"role": "assistant", "tool_calls": ["x"]}, "unknown tool call 'x'"),
        ({"role": "assistant", "tool_calls": [{"type": "function"}]}, "unknown tool call"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "id": 3}]}, "name and id must be strings"),
        ({"role": "assistant", "tool_calls": [{"type": "function", "function": {}}]}, "name and id must be strings"),
    ],
)
def test_what_is_no_message(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Message.from_json(data)
