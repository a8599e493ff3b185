import pytest

from ownlm.render.html import count, decimal, duration, fence, markdown, percent, signed, size, visible


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (count(4_930_000), "4.9 M"),
        (count(412), "412"),
        (count(16_384), "16.4 k"),
        (count(7_000_000_000), "7.0 B"),
        (count(None), "–"),
        (size(22_500_000), "22.5 MB"),
        (size(12), "12 bytes"),
        (duration(42), "42 s"),
        (duration(252), "4.2 min"),
        (duration(7_200), "2.0 h"),
        (decimal(1.23456), "1.235"),
        (decimal(float("nan")), "–"),
        (percent(0.391), "39.1 %"),
        (signed(-0.02), "-2.0 %"),
        (signed(None), "–"),
    ],
)
def test_numbers(made: str, expected: str) -> None:
    assert made == expected


def test_markdown_stays_text() -> None:
    assert markdown("a|b <b>*x*</b>\n# [y](z)") == r"a\|b &lt;b\>\*x\*&lt;/b\> \# \[y\](z)"


def test_a_fence_cannot_be_closed_from_inside() -> None:
    assert fence("a\n````\n<script>") == "`````text\na\n````\n<script>\n`````"


def test_hidden_characters_are_shown() -> None:
    assert visible("a\x00\x1b[31m\u202eb\n\tc") == "a��[31m�b\n\tc"
