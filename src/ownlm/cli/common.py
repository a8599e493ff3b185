"""What every command shares: the options that all take, and the arguments that several take."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen

if TYPE_CHECKING:
    from ownlm.engine.request import SamplingParams
    from ownlm.store.workspace import Workspace

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name, id or folder, hf:org/name, or openai:BASE_URL#model.")
]
OwnModelArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A model of this workspace: its id, name or alias (see `ownlm ls model`).")
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="An artifact's id, name or alias (see `ownlm ls`).")]
MaxTokens = Annotated[int, typer.Option(help="At most this many new tokens.")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token; higher is more varied.")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest tokens up to this share of probability; 1 is off.")]
TopK = Annotated[int, typer.Option(help="Keep this many of the likeliest tokens; 0 is off.")]
MinP = Annotated[float, typer.Option(help="Keep tokens of at least this share of the best one; 0 is off.")]
Seed = Annotated[int | None, typer.Option(help="Makes the answer repeatable.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be given several times.")]

Precision = Annotated[
    str, typer.Option(help="auto (bfloat16 as stored, else float32), float32 or bfloat16.", rich_help_panel="Weights")
]
Quantize = Annotated[
    str | None,
    typer.Option(help="Hold the weights in fewer bits: int8, int4, or int4:32, :64, :128.", rich_help_panel="Weights"),
]

_SHARED = {
    "as_json": typer.Option("--json", help="One JSON document as the last line of stdout."),
    "quiet": typer.Option("--quiet", "-q", help="Only warnings and the result."),
    "debug": typer.Option("--debug", help="Show the traceback of an error."),
}


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a command of `function(screen, ...)`: adds --json, --quiet and --debug, and hands in the screen."""
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]

    @functools.wraps(function)
    def command(*, as_json: bool, quiet: bool, debug: bool, **arguments: Any) -> None:
        function(Screen(json_mode=as_json, quiet=quiet), **arguments)

    parameters = [each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    for name, option in _SHARED.items():
        annotation = Annotated[bool, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation))
    del command.__dict__["__wrapped__"]
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def workspace() -> Workspace:
    """The workspace of this command: `$OWNLM_HOME`, else `./workspace`."""
    from ownlm.store.workspace import Workspace

    return Workspace()


def sampling(stop: list[str] | None, **fields: Any) -> SamplingParams:
    """The sampling parameters of the command line.

    Raises:
        UnsupportedParameter: a value out of its range.
    """
    from ownlm.engine.request import SamplingParams

    return SamplingParams(stop=tuple(stop or ()), **fields)


def existing_file(path: Path, what: str) -> Path:
    """`path`, when it is a file.

    Raises:
        OwnLMError: it is not.
    """
    if not path.is_file():
        raise OwnLMError(f"{path} is not a file: {what} was expected there.")
    return path


def size_text(count: float) -> str:
    """Bytes for people: "512 B", "3.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def time_text(seconds: float) -> str:
    """Seconds for people: "0.4 s", "38 s", "7 min 5 s"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
