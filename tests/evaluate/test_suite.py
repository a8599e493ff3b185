from pathlib import Path

import pytest

from ownlm.data.message import Message
from ownlm.evaluate.suite import read_suite
from ownlm.runtime.errors import OwnLMError

GOOD = """\
name: first-steps
about: Two small questions.
sampling: {max_tokens: 9, stop: ["\\n"]}
cases:
  - id: add
    prompt: "def add(a, b):"
    score: {contains: return, max_lines: 4}
    tags: [code]
  - messages: [{role: user, content: "What?"}]
    score: {finished: true}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_good_suite(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path, GOOD))
    assert suite.name == "first-steps" and [case.id for case in suite.cases] == ["add", "2"]
    assert suite.sampling.max_tokens == 9 and suite.sampling.temperature == 0 and suite.sampling.stop == ("\n",)
    assert suite.cases[1].prompt == (Message.of("user", "What?"),)
    assert suite.cases[0].score == {"contains": "return", "max_lines": 4}


def test_one_stop_text_is_one(tmp_path: Path) -> None:
    assert read_suite(write(tmp_path, GOOD.replace('stop: ["\\n"]', "stop: END"))).sampling.stop == ("END",)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("    tags:", "    tgas:", 8, "did you mean 'tags'"),
        ("about:", "abuot:", 2, "did you mean 'about'"),
        ("contains", "contain", 7, "Did you mean 'contains'"),
        ("max_lines: 4", "max_lines: four", 7, "needs a whole number"),
        ("max_tokens: 9", "max_token: 9", 3, "did you mean 'max_tokens'"),
        ("max_tokens: 9", "max_tokens: 0", 3, "at least 1"),
        ("max_tokens: 9", "max_tokens: many", 3, "whole number"),
        ("max_tokens: 9", "max_tokens: 2.5", 3, "max_tokens takes a whole number, not 2.5"),
        ("max_tokens: 9", "max_tokens: true", 3, "whole number"),
        ("max_tokens: 9", "max_tokens: null", 3, "whole number"),
        ("max_tokens: 9", "top_k: 1.5", 3, "top_k takes a whole number"),
        ("max_tokens: 9", "seed: x", 3, "seed takes a whole number"),
        ("max_tokens: 9", "logprobs: 2.5", 3, "logprobs takes a whole number"),
        ("max_tokens: 9", "temperature: true", 3, "temperature takes a number"),
        ("max_tokens: 9", "top_p: '1'", 3, "top_p takes a number"),
        ('stop: ["\\n"]', "stop: [1]", 3, "a text or a list of texts"),
        ('stop: ["\\n"]', "stop: {END: 1}", 3, "a text or a list of texts"),
        ('stop: ["\\n"]', "stop: null", 3, "a text or a list of texts"),
        ('sampling: {max_tokens: 9, stop: ["\\n"]}', "sampling: null", 3, "a mapping with the keys"),
        ('sampling: {max_tokens: 9, stop: ["\\n"]}', "sampling: []", 3, "a mapping with the keys"),
        ("role: user", "role: usr", 9, "role must be one of"),
        ('    prompt: "def add(a, b):"\n', "", 5, "either `prompt` or `messages`"),
        ("    score: {finished: true}\n", "", 9, "needs `score`"),
        ("tags: [code]", "tags: code", 8, "list of texts"),
        ("id: add", "id: 2", 9, "taken"),
        ("[{role", "[{role: user, role", 9, "twice"),
        ("cases:", "cases: [", 0, "not YAML"),
    ],
)
def test_mistakes_name_file_line_and_remedy(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(OwnLMError) as caught:
        read_suite(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}, line {line or ''}")


@pytest.mark.parametrize("text", ["", "name: x\n", "cases: []\n", "- 1\n"])
def test_an_empty_suite_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(OwnLMError, match="cases"):
        read_suite(write(tmp_path, text))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(OwnLMError, match="cannot be read"):
        read_suite(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(OwnLMError, match="UTF-8"):
        read_suite(tmp_path / "bytes.yaml")
