"""A model's chat template: Jinja in a sandbox, with what templates expect beside it.

Templates come with models from anywhere, so they are hostile until shown otherwise: they see plain data alone, leave no
sandbox, and have `SECONDS` to render.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ownlm.data.tokenizer_protocol import Span
from ownlm.runtime.errors import OwnLMError

CHATML_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['content'] is string %}{{- message['content'] }}"
    "{%- else %}{%- for part in message['content'] %}{{- part['text'] }}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML: `<|im_start|>role`, a newline, the content, `<|im_end|>`, a newline."""

SECONDS = 10.0
"""The time that a template may take; real ones take milliseconds."""
LONGEST_PRODUCT = 10_000_000
"""Characters or items that a repetition (`'-' * 80`) may make."""


@dataclass(frozen=True)
class Rendered:
    """What a template made of a conversation."""

    text: str
    generated: tuple[Span, ...]
    """What stood in `{% generation %}` blocks: the assistant's own words."""


def render(template: str, values: Mapping[str, Any]) -> Rendered:
    """The text that a template makes of its variables (`messages`, `tools`, `add_generation_prompt`, ...).

    Raises:
        OwnLMError: the template is broken, refuses the conversation, takes too long, or tries to leave its sandbox.
    """
    try:
        compiled = _compiled(template)
        _run.deadline, _run.blocks, _run.generated = time.monotonic() + SECONDS, [], []
        for block in compiled.generate(**values):
            _run.blocks.append(block)
        return Rendered("".join(_run.blocks), tuple(_run.generated))
    except Exception as error:  # a hostile template can raise anything: KeyError, OverflowError, RecursionError, ...
        raise OwnLMError(f"The chat template cannot render this conversation: {error or repr(error)}.") from error
    finally:
        _run.blocks, _run.generated = [], []


@lru_cache(maxsize=64)
def constants(template: str) -> frozenset[str]:
    """The strings that a template's expressions hold: what it can compare a message's text with.

    Raises:
        OwnLMError: the template is broken.
    """
    try:
        found = _environment().parse(template).find_all(nodes.Const)
    except TemplateError as error:
        raise OwnLMError(f"The chat template cannot be read: {error}.") from None
    return frozenset(node.value for node in found if isinstance(node.value, str))


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    """Compiling takes a hundred times as long as rendering, and a fine-tuning set renders thousands of times."""
    environment = _environment()
    tree = environment.parse(template)
    tick = environment.extensions[_Generation.identifier]
    assert isinstance(tick, _Generation)
    for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
        assert isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock))
        node.body.insert(0, nodes.ExprStmt(tick.call_method("_tick")))
    return environment.from_string(tree)


class _Run(threading.local):
    """The rendering under way in this thread."""

    deadline = 0.0
    blocks: list[str] = []
    generated: list[Span] = []


_run = _Run()


class _Generation(Extension):
    """`{% generation %}` blocks, which say what the assistant wrote; and the clock that loops and macros ask."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """Calls `_note` with what is inside."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Macro) -> str:
        text = str(caller())
        start = sum(map(len, _run.blocks))
        _run.generated.append((start, start + len(text)))
        return text

    def _tick(self) -> None:
        if time.monotonic() > _run.deadline:
            raise TemplateError(f"it takes longer than {SECONDS:g} seconds")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own sandbox, which also looks at products."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuses what would fill the memory in one step."""
        if operator == "**" and (abs(left) > 1_000_000 or abs(right) > 1_000):
            raise SecurityError(f"{left}**{right} is too large")
        for items, times in ((left, right), (right, left)):
            too_many = isinstance(items, Sequence) and isinstance(times, int) and len(items) * times > LONGEST_PRODUCT
            if operator == "*" and too_many:
                raise SecurityError(f"a repetition of {len(items)} items {times} times is too long")
        return super().call_binop(context, operator, left, right)


class _Dict:
    """`dict(...)` without the type itself."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        """As `dict.fromkeys`."""
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """`namespace(...)` without names that begin with an underscore."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        made = dict(*rest, **values)
        for name in made:
            _Namespace._check(name)
        Namespace.__init__(self, made)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace cannot have the attribute {name!r}")


def _environment() -> Environment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse, "strftime_now": _now, "dict": _Dict(), "namespace": _Namespace
    }  # fmt: skip
    return environment


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Without the escapes for HTML that Jinja's own filter has."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
