"""The `ownlm` command: finds the verb, imports only its file, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ownlm.cli.common import verb
from ownlm.cli.verbs import PANELS, VERBS
from ownlm.runtime.errors import Interrupted, OwnLMError
from ownlm.runtime.progress import Screen

SHARED = {"--json": "as_json", "--quiet": "quiet", "--debug": "debug"}
"""The flags that may stand before the command too, and their parameters."""


class Verbs(TyperGroup):
    """The verbs, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"ownlm.cli.{VERBS[cmd_name].file}")
        if hasattr(module, "app"):
            command = typer.main.get_command(module.app)
        else:
            app = new_app()
            app.command(cmd_name)(module.command)
            command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        bold = partial(typer.style, bold=True)
        lines = ["", bold("ownlm") + ": own your language model, from your documents to a server of your own.", ""]
        for panel, verbs in PANELS.items():
            lines.append(bold(panel))
            lines.extend(f"  {typer.style(name.ljust(10), fg='cyan')} {each.summary}" for name, each in verbs.items())
            lines.append("")
        lines.append("MODEL is a name or id (`ownlm ls`), a folder, hf:org/name, or openai:BASE_URL#model.")
        lines.append("`ownlm` alone tells what exists here and what to do next; `ownlm COMMAND --help` tells more.")
        lines.append("Every command takes --json (one JSON document as the last line), --quiet and --debug.")
        formatter.write("\n".join(lines) + "\n")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise OwnLMError(unknown("command", args[0], list(VERBS)) + " `ownlm --help` tells what each does.")
        name, command, rest = super().resolve_command(ctx, args)
        given = [option for option, key in SHARED.items() if ctx.params.get(key)]
        if hasattr(command, "commands"):  # a group: the flags belong to the verb inside ("data show")
            return name, command, [*rest[:1], *given, *rest[1:]] if rest else rest
        return name, command, [*given, *rest]


def new_app(**options: Any) -> typer.Typer:
    """A typer application in this house's manner."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]}, **options,
    )  # fmt: skip


def unknown(what: str, given: str, known: Sequence[str]) -> str:
    """A sentence about a name that is none of `known`, with the nearest one."""
    nearest = get_close_matches(given, known, n=1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"There is no {what} '{given}'.{hint} There is: {', '.join(known)}."


app = new_app(cls=Verbs, invoke_without_command=True)


@app.callback()
@verb
def overview(
    screen: Screen,
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Own your language model: from your documents to an assistant that you serve yourself.

    Without a command: what exists here, what is running, and the best next step.
    """
    if version:
        from ownlm import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        from ownlm.cli.status import status

        status(screen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (a fault of OwnLM's), 2 (the user's mistake), 130, 143."""
    speak_utf8()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json, debug = "--json" in options, "--debug" in options
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="ownlm", standalone_mode=False)
        if code == 130:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except Interrupted as stop:
        return _tell(str(stop), "interrupted", stop.exit_code, as_json, kind="Stopped")
    except (KeyboardInterrupt, typer.Abort):
        return _tell("Nothing was half-done: what was complete is kept.", "interrupted", 130, as_json, kind="Stopped")
    except OwnLMError as error:
        if debug:
            raise
        return _tell(str(error), error.code, error.exit_code, as_json)
    except typer.TyperException as error:
        if debug:
            raise
        sentence = " ".join(error.format_message().split())
        return _tell(f"{sentence} `ownlm --help` and `ownlm COMMAND --help` tell more.", "usage", 2, as_json)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _tell(f"{where}{error.strerror or error}.", "system_error", 2, as_json)
    except Exception as error:
        if debug:
            raise
        sentence = f"{type(error).__name__}: {error} (add --debug for the traceback)"
        return _tell(f"Something unexpected happened: {sentence}", "internal_error", 1, as_json)


def speak_utf8() -> None:
    """Lets pipes and files carry UTF-8 on every system; what a terminal cannot show becomes "?"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        with suppress(io.UnsupportedOperation):  # somebody has read from it before
            sys.stdin.reconfigure(encoding="utf-8")


def _tell(message: str, code: str, exit_code: int, as_json: bool, kind: str = "Error") -> int:
    print(f"{kind}: {message}" if message else kind, file=sys.stderr)
    if as_json:
        print(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False))
    return exit_code
