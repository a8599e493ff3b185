"""What people thought of answers: one append-only table, in SQLite beside the artifacts or in a database by URL.

    store = open_feedback(workspace)
    store.add(Feedback(kind="thumb", session="a1", prompt=[...], answers=[...], verdict="up"))

`$OWNLM_DATABASE_URL` (any URL that SQLAlchemy knows) takes the place of `workspace/feedback.db`. Opening a database
brings its tables up to date. Each verdict is committed when `add` returns, so a kill loses none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from sqlalchemy import (
    JSON,
    URL,
    Connection,
    DateTime,
    Double,
    Engine,
    Text,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from ownlm.runtime.errors import OwnLMError
from ownlm.store.migrate import migrate
from ownlm.store.workspace import Workspace

Kind = Literal["thumb", "pair"]
THUMB_VERDICTS = ("up", "down")
PAIR_VERDICTS = ("a", "b", "tie", "both_bad", "skip")
VERDICTS: dict[str, tuple[str, ...]] = {"thumb": THUMB_VERDICTS, "pair": PAIR_VERDICTS}
ANSWERS: dict[str, int] = {"thumb": 1, "pair": 2}
"""How many answers a verdict of each kind is about."""


class FeedbackError(OwnLMError):
    """A verdict that makes no sense (`name` is the field), or a database that cannot be used."""

    code = "feedback_error"

    def __init__(self, message: str, name: str | None = None) -> None:
        self.name = name
        super().__init__(message)


@dataclass(frozen=True)
class Feedback:
    """One verdict.

    `prompt` holds messages (`Message.to_json`), `answers` one `{"model_id", "text", "sampling"}` for a thumb and two, a
    and b, for a pair. `order_shown` says in which order a pair stood on the screen: "ab" or "ba"; `verdict` names the
    answer, not the place. `strength` is how much better (1 slightly, 2 clearly, 3 far); `edit` is the answer as it
    should have been; `seconds_taken` the time from showing to verdict. `id` and `created` are given by `add`.
    """

    kind: Kind
    session: str
    prompt: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    verdict: str
    order_shown: str | None = None
    strength: int | None = None
    edit: str | None = None
    reason: str | None = None
    annotator: str | None = None
    annotator_group: str | None = None
    seconds_taken: float | None = None
    id: int | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if self.kind not in VERDICTS:
            raise FeedbackError(f"kind is {self.kind!r}; it must be 'thumb' or 'pair'.", "kind")
        allowed, answers = VERDICTS[self.kind], ANSWERS[self.kind]
        checks: list[tuple[str, bool, str]] = [
            ("verdict", self.verdict in allowed, f"of a {self.kind} it must be one of {', '.join(allowed)}"),
            ("order_shown", self.order_shown in (None, "ab", "ba"), "it must be 'ab' or 'ba'"),
            ("strength", self.strength in (None, 1, 2, 3), "it must be 1 (slightly), 2 (clearly) or 3 (far better)"),
        ]
        for name, holds, rule in checks:
            if not holds:
                raise FeedbackError(f"{name} is {getattr(self, name)!r}; {rule}.", name)
        if len(self.answers) != answers:
            raise FeedbackError(f"A {self.kind} needs {answers} answers, not {len(self.answers)}.", "answers")


class Base(DeclarativeBase):
    """The tables of the feedback database."""

    type_annotation_map = {dict[str, Any]: JSON, list[dict[str, Any]]: JSON, str: Text, float: Double}


class FeedbackRow(Base):
    """A `Feedback` as it is stored; the ids count up, so they give the order."""

    __tablename__ = "feedback"

    id: Mapped[int] = mapped_column(primary_key=True)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    session: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(index=True)
    prompt: Mapped[list[dict[str, Any]]]
    answers: Mapped[list[dict[str, Any]]]
    order_shown: Mapped[str | None]
    verdict: Mapped[str]
    strength: Mapped[int | None]
    edit: Mapped[str | None]
    reason: Mapped[str | None]
    annotator: Mapped[str | None]
    annotator_group: Mapped[str | None]
    seconds_taken: Mapped[float | None]

    def feedback(self) -> Feedback:
        """The row as a value."""
        values = {each.name: getattr(self, each.name) for each in fields(Feedback)}
        if values["created"].tzinfo is None:  # SQLite keeps no time zone; what we write is UTC
            values["created"] = values["created"].replace(tzinfo=UTC)
        return Feedback(**values)


class FeedbackStore:
    """An open feedback database; may be used from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, feedback: Feedback) -> int:
        """Writes one verdict down for good and returns its id.

        Raises:
            FeedbackError: the database does not take it.
        """
        values = {each.name: getattr(feedback, each.name) for each in fields(Feedback) if each.name != "id"}
        with _told(self._engine.url), Session(self._engine) as session:
            row = FeedbackRow(**values)
            session.add(row)
            session.commit()
            return row.id

    def thumbs(self, session: str | None = None) -> list[Feedback]:
        """Verdicts on single answers, oldest first."""
        return self._read("thumb", session)

    def pairs(self, session: str | None = None) -> list[Feedback]:
        """Verdicts on two answers to one prompt, oldest first."""
        return self._read("pair", session)

    def count(self, kind: Kind | None = None) -> int:
        """How many verdicts there are."""
        query = select(func.count()).select_from(FeedbackRow)
        if kind is not None:
            query = query.where(FeedbackRow.kind == kind)
        with _told(self._engine.url), Session(self._engine) as session:
            return int(session.scalar(query) or 0)

    def close(self) -> None:
        """Closes the connections; the store opens new ones when it is used again."""
        self._engine.dispose()

    def _read(self, kind: Kind, session_name: str | None) -> list[Feedback]:
        query = select(FeedbackRow).where(FeedbackRow.kind == kind).order_by(FeedbackRow.id)
        if session_name is not None:
            query = query.where(FeedbackRow.session == session_name)
        with _told(self._engine.url), Session(self._engine) as session:
            return [row.feedback() for row in session.scalars(query)]


def open_feedback(place: Workspace | Path | str | None = None) -> FeedbackStore:
    """The feedback database of a workspace (or its folder), or the one at a URL such as `postgresql+psycopg://...`.

    `$OWNLM_DATABASE_URL` overrides a workspace, not a URL.

    Raises:
        FeedbackError: the URL makes no sense, or the database cannot be reached or is damaged.
        DatabaseTooNew: a later OwnLM made it.
    """
    url = _url(place)
    with _told(url):
        engine = create_engine(url)
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        with _told(url):
            migrate(engine)
        return FeedbackStore(engine)
    path = Path(str(url.database))
    path.parent.mkdir(parents=True, exist_ok=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    # Two processes that open a new database at once must not both create its tables.
    with FileLock(path.with_name(f".{path.name}.lock")), _told(url):
        migrate(engine)
    return FeedbackStore(engine)


def _url(place: Workspace | Path | str | None) -> URL:
    if isinstance(place, str) and "://" in place:
        return _parsed(place)
    given = os.environ.get("OWNLM_DATABASE_URL")
    if given:
        return _parsed(given)
    root = place.root if isinstance(place, Workspace) else Workspace(place).root
    return URL.create("sqlite", database=str(root / "feedback.db"))


def _parsed(text: str) -> URL:
    try:
        return make_url(text)
    except ArgumentError:
        raise FeedbackError("OWNLM_DATABASE_URL is not a database URL, such as sqlite:////folder/file.db.") from None


def _prepare_sqlite(connection: Any, _: object) -> None:
    """WAL lets readers go on while somebody writes; FULL makes a commit survive a power cut too.

    Python's driver begins a transaction before data only, never before `CREATE TABLE`: with `isolation_level` None it
    leaves that to `_begin_immediate`, so that a migration happens as a whole or not at all.
    """
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_immediate(connection: Connection) -> None:
    """Takes the write lock at once: one that is asked for in mid-transaction may be refused without waiting."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _told(url: URL) -> Iterator[None]:
    """Turns the library's errors into one sentence that names the database, its password hidden."""
    try:
        yield
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise FeedbackError(f"The database {url} needs a driver that is not installed: {error}.") from error
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise FeedbackError(f"The feedback database {url} cannot be used: {cause}.") from error
