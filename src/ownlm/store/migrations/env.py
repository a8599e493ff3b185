"""Run by Alembic for each command: migrates over the connection that `ownlm.store.migrate` hands in."""

from __future__ import annotations

from alembic import context

from ownlm.store.feedback import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a column; Alembic then copies the table
)
with context.begin_transaction():
    context.run_migrations()
