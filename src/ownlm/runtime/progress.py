"""What people see while work goes on: sentences, headings, tables and bars; and one JSON line for programs.

On a terminal it is calm and coloured, in a pipe plain text. With `json_mode` everything for people goes to stderr and
the last line of stdout is one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

PIPE_INTERVAL = 30.0
"""Seconds between two lines of a bar that does not write to a terminal."""


class Bar:
    """A bar that nobody sees; its subclasses show one."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit

    def update(self, completed: float, note: str = "") -> None:
        """Sets how much of `total` is done, and a short note beside it ("loss 2.31")."""


class PlainBar(Bar):
    """For pipes and logs: a line on stderr, at most every `PIPE_INTERVAL` seconds."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        super().__init__(label, total, unit)
        self._last = time.monotonic()

    def update(self, completed: float, note: str = "") -> None:
        if time.monotonic() - self._last < PIPE_INTERVAL:
            return
        self._last = time.monotonic()
        share = 100 * completed / self.total if self.total else 100.0
        print(f"{self.label}: {share:.0f} %{', ' + note if note else ''}", file=sys.stderr, flush=True)


class LiveBar(Bar):
    """For terminals: drawn by rich."""

    def __init__(self, label: str, total: float, unit: str, progress: Progress, task: TaskID) -> None:
        super().__init__(label, total, unit)
        self._progress, self._task = progress, task

    def update(self, completed: float, note: str = "") -> None:
        amount = f"{completed:,.0f}/{self.total:,.0f} {self.unit}" if self.unit else ""
        self._progress.update(self._task, completed=completed, note=note, amount=amount)


class Screen:
    """Where a command tells what it does. `quiet` keeps only warnings and the result."""

    def __init__(self, json_mode: bool = False, quiet: bool = False) -> None:
        self.json_mode, self.quiet = json_mode, quiet
        self._live: Console | None = None

    # ---- sentences

    def say(self, sentence: str) -> None:
        """One plain sentence about what was just done."""
        self._print(sentence)

    def stage(self, name: str) -> None:
        """A heading: what begins now."""
        self._print(f"\n{name}" if not self._colour else f"\n● {name}", style="bold cyan")

    def detail(self, text: str) -> None:
        """Something beside the point, indented and dim."""
        self._print("\n".join(f"  {line}" for line in text.splitlines()), style="dim")

    def warn(self, text: str) -> None:
        """Something that the user should know; on stderr, also when quiet."""
        self._print(f"Warning: {text}", style="yellow", warning=True)

    def next(self, command: str, why: str = "") -> None:
        """The best next command, as the last sentence."""
        if self.quiet:
            return
        if not self._colour:
            self._print(f"\nNext: {command}" + (f"  ({why})" if why else ""))
            return
        from rich.text import Text

        tail = (f"  {why}", "dim") if why else ""
        self._console().print(Text.assemble("\n", ("Next: ", "bold"), (command, "bold green"), tail), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; numbers stand right-aligned."""
        if self.quiet or not rows:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, show_header=any(columns)
        )
        for index, column in enumerate(columns):
            number = all(isinstance(row[index], int | float) for row in rows)
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(_cell(value)) for value in row))
        self._console().print(table)

    # ---- work that takes a while

    @contextmanager
    def bar(self, label: str, total: float, unit: str = "") -> Iterator[Bar]:
        """A progress bar on stderr while the block runs; it disappears afterwards, and the caller says what was done.

        In a pipe there is a plain line every half a minute at most.
        """
        if self.quiet:
            yield Bar(label, total, unit)
        elif not sys.stderr.isatty() or self._live is not None:
            yield PlainBar(label, total, unit)
        else:
            with self._live_bar(label, total, unit) as bar:
                yield bar

    @contextmanager
    def _live_bar(self, label: str, total: float, unit: str) -> Iterator[Bar]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=28, complete_style="cyan", finished_style="green"),
            TaskProgressColumn(),
            TextColumn("{task.fields[amount]}", style="dim", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
        )
        console = Console(stderr=True, highlight=False)
        # Four frames a second: drawing must not take the cores that the work needs. Only a terminal's stdout is
        # redirected through the bar; a file's stays a file's.
        with Progress(
            *columns, console=console, transient=True, refresh_per_second=4, redirect_stdout=sys.stdout.isatty()
        ) as progress:
            self._live = console
            try:
                task = progress.add_task(label, total=total, note="", amount="")
                yield LiveBar(label, total, unit, progress, task)
            finally:
                self._live = None

    # ---- for programs

    def result(self, data: Mapping[str, Any]) -> None:
        """The one JSON document, as the last line of stdout; nothing without `json_mode`."""
        if self.json_mode:
            sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()

    # ---- inside

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self.json_mode else sys.stdout

    @property
    def _colour(self) -> bool:
        return self._stream.isatty()

    def _console(self, warning: bool = False) -> Console:
        """Where a sentence goes: through a live bar where both are on the terminal, else to its own stream."""
        from rich.console import Console

        stream = sys.stderr if warning else self._stream
        if self._live is not None and stream.isatty():
            return self._live
        return Console(file=stream, highlight=False, width=None if stream.isatty() else 120)

    def _print(self, text: str, style: str = "", warning: bool = False) -> None:
        if self.quiet and not warning:
            return
        stream = sys.stderr if warning else self._stream
        if stream.isatty():
            self._console(warning).print(text, style=style or None, markup=False, emoji=False)
        else:
            print(text, file=stream, flush=True)


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
