"""HTML and Markdown from templates that lie beside the code, and the numbers in them as people read them.

Whatever is put into an HTML template is escaped; only what `Markup` wraps (our own drawings) is not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(package: str, template: str, **values: Any) -> str:
    """Fills `templates/<template>` of a package ("ownlm.report"). `.html.j2` escapes everything, `.md.j2` nothing.

    A template uses `md` and `fence` for text that it did not write itself.
    """
    environment = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(template).render(**values)


def count(value: float | None) -> str:
    """4,930,000 as "4.9 M"; small whole numbers in full."""
    if not _finite(value):
        return "–"
    assert value is not None
    for size, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            scaled = value / (size if unit != " k" else 1e3)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:,.0f}{unit}"
    return f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes as "21.3 MB" (powers of ten)."""
    if not _finite(value):
        return "–"
    assert value is not None
    for power, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= power:
            return f"{value / power:.1f} {unit}"
    return f"{value:,.0f} bytes"


def duration(value: float | None) -> str:
    """Seconds as "7.5 min"."""
    if not _finite(value):
        return "–"
    assert value is not None
    if value >= 5400:
        return f"{value / 3600:.1f} h"
    return f"{value / 60:.1f} min" if value >= 90 else f"{value:.0f} s"


def decimal(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals."""
    return f"{value:,.{digits}f}" if _finite(value) else "–"


def percent(value: float | None, digits: int = 1) -> str:
    """0.123 as "12.3 %"."""
    return f"{100 * value:.{digits}f} %" if value is not None and _finite(value) else "–"


def signed(value: float | None, digits: int = 1) -> str:
    """0.123 as "+12.3 %"."""
    return f"{100 * value:+.{digits}f} %" if value is not None and _finite(value) else "–"


def markdown(value: object) -> str:
    """Text that stays text in Markdown: one line, nothing in it a mark-up or HTML."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>#|~$&])", r"\\\1", line).replace("\\<", "&lt;").replace("\\&", "&amp;")


def fence(value: object, language: str = "text") -> str:
    """Text as a fenced block whose fence is longer than any run of backticks inside."""
    text = str(value)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def visible(value: object) -> str:
    """Control characters and text-direction overrides become visible, so that no sample can garble the page."""
    return "".join(_visible(str(value)))


def _visible(text: str) -> Iterator[str]:
    for character in text:
        hidden = (ord(character) < 32 and character not in "\n\t") or 0x7F <= ord(character) < 0xA0
        override = character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
        yield "�" if hidden or override else character


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "size": size,
    "duration": duration,
    "decimal": decimal,
    "percent": percent,
    "signed": signed,
    "md": markdown,
    "fence": fence,
    "visible": visible,
}
