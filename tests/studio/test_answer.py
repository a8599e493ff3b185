"""Model output becomes HTML only after it is escaped."""

import re

import pytest

from ownlm.studio.answer import Part, answer_html, coloured, inline_html, parts, raw_html
from studio_types import CODE, HOSTILE

ALLOWED = re.compile(r'</?(?:p|pre|code)>|<span class="[cksnf]">|</span>|<pre class="raw">')


@pytest.mark.parametrize(
    "text", [HOSTILE, f"```html\n{HOSTILE}\n```", f"```\n'{HOSTILE}", f"`{HOSTILE}`", '```"><script>\nx = 1\n```']
)
def test_nothing_of_a_hostile_answer_is_markup(text: str) -> None:
    for html in (answer_html(text), raw_html(text), inline_html(text), coloured(text)):
        assert "<" not in ALLOWED.sub("", html)


def test_fences_are_code_also_while_they_are_open() -> None:
    assert list(parts("a\n```python\nx = 1\n```\nb")) == [Part("a", False), Part("x = 1", True), Part("b", False)]
    assert list(parts("a\n```py\nx = 1")) == [Part("a", False), Part("x = 1", True)]
    assert list(parts("")) == []


def test_indented_lines_are_code_without_a_fence_too() -> None:
    assert list(parts("def f():\n    a = 1\n    return a")) == [Part("def f():\n    a = 1\n    return a", True)]
    assert list(parts("One:\n    quoted\nand on.")) == [Part("One:\n    quoted\nand on.", False)]


def test_code_has_colours() -> None:
    html = answer_html(CODE)
    assert html.startswith("<p>Here it is:</p><pre><code>")
    assert '<span class="k">def</span> <span class="f">read_lines</span>(path)' in html
    assert '<span class="s">&quot;utf-8&quot;</span>' in html
    assert '<span class="c"># no empty ones</span>' in html


def test_colours_change_no_character() -> None:
    from html import unescape

    code = "x = '''open\n# not a comment: \"in\" <a> & b\nfor i in 1e-3: f(i)\t\"unclosed"
    assert unescape(re.sub(r"</?span[^>]*>", "", coloured(code))) == code


def test_backticks_are_code_and_control_characters_are_seen() -> None:
    assert inline_html("use `a < b`") == "use <code>a &lt; b</code>"
    assert inline_html("a\u202eb\x1b") == "a�b�"


def test_a_long_answer_takes_no_time() -> None:
    assert len(answer_html("```\n" + "'" * 50_000)) > 50_000
    assert len(coloured('"""' * 6000)) > 6000
