"""Brings a database's tables up to date, by the migrations in `store/migrations`."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from ownlm.runtime.errors import OwnLMError

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 7_269_001
"""Any number, but always the same: whoever migrates a PostgreSQL database holds the advisory lock of this number."""

_ONE_AT_A_TIME = Lock()
"""Alembic keeps the environment of the running migration in a module of its own, so threads must take turns."""


class DatabaseTooNew(OwnLMError):
    """A later OwnLM changed the tables in ways that this one does not know."""

    code = "database_too_new"


def config() -> Config:
    """Alembic's settings, without a file."""
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


def migrate(engine: Engine, revision: str = "head") -> None:
    """Runs the migrations that are missing, all of them in one transaction.

    Raises:
        DatabaseTooNew: the database has a revision that is not among ours.
    """
    settings = config()
    scripts = ScriptDirectory.from_config(settings)
    with _ONE_AT_A_TIME, engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current == scripts.get_current_head():
            return
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise DatabaseTooNew(
                f"The feedback database {engine.url} was made by a later OwnLM (revision {current}): update OwnLM."
            )
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)
