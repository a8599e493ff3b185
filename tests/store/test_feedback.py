"""The feedback database: kept, in order, through kills, races and versions."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from ownlm.store.feedback import Base, Feedback, FeedbackError, open_feedback
from ownlm.store.migrate import DatabaseTooNew, config, migrate
from ownlm.store.workspace import Workspace

PROMPT = [{"role": "user", "content": [{"type": "text", "text": "What does é mean? \U0001f600"}]}]
ANSWER = {"model_id": "abc", "text": "That.\x00", "sampling": {"temperature": 0.7, "seed": None}}


def thumb(verdict: str = "up", **fields: Any) -> Feedback:
    return Feedback(
        **{"kind": "thumb", "session": "s", "prompt": PROMPT, "answers": [ANSWER], "verdict": verdict, **fields}
    )


def pair(verdict: str = "a", **fields: Any) -> Feedback:
    return thumb(verdict, **{"kind": "pair", "answers": [ANSWER, ANSWER], **fields})


def test_what_goes_in_comes_out(workspace: Workspace) -> None:
    store = open_feedback(workspace)
    given = pair(
        "tie", session="s2", order_shown="ba", strength=3, edit="Better.", reason="Both fine.", annotator="me",
        annotator_group="experts", seconds_taken=2.25,
    )  # fmt: skip
    assert store.add(given) == 1
    assert store.add(thumb("down")) == 2
    store.close()
    again = open_feedback(workspace)
    (found,) = again.pairs()
    assert found == Feedback(**{**vars(given), "id": 1})
    assert found.created.tzinfo is not None
    assert abs((datetime.now(UTC) - found.created).total_seconds()) < 60
    assert [each.verdict for each in again.thumbs()] == ["down"]
    assert again.pairs(session="other") == []
    assert (again.count(), again.count("pair")) == (2, 1)


@pytest.mark.parametrize(
    ("make", "fields", "name"),
    [
        (thumb, {"verdict": "tie"}, "verdict"),
        (pair, {"verdict": "up"}, "verdict"),
        (thumb, {"kind": "star"}, "kind"),
        (thumb, {"answers": []}, "answers"),
        (pair, {"answers": [ANSWER]}, "answers"),
        (pair, {"order_shown": "aa"}, "order_shown"),
        (pair, {"strength": 0}, "strength"),
    ],
)
def test_nonsense_is_refused(make: Any, fields: dict[str, Any], name: str) -> None:
    with pytest.raises(FeedbackError) as caught:
        make(**fields)
    assert caught.value.name == name


KILLED = """
import os, signal, sys
from ownlm.store.feedback import Feedback, open_feedback
store = open_feedback(sys.argv[1])
answer = {"model_id": "abc", "text": "x", "sampling": {}}
for number in range(3):
    store.add(Feedback(kind="thumb", session=str(number), prompt=[], answers=[answer], verdict="up"))
os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
"""


def test_a_kill_loses_no_verdict(workspace: Workspace) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(workspace.root)], capture_output=True, text=True)
    assert done.returncode != 0
    assert not done.stderr
    store = open_feedback(workspace)
    assert [each.session for each in store.thumbs()] == ["0", "1", "2"]
    with store._engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"


def test_many_open_and_write_at_once(workspace: Workspace) -> None:
    def work(number: int) -> None:
        store = open_feedback(workspace)
        for _ in range(5):
            store.add(thumb(session=str(number)))
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    store = open_feedback(workspace)
    assert store.count() == 20
    ids = [each.id for each in store.thumbs()]
    assert ids == sorted(set(ids), key=lambda number: number or 0)


def test_the_migrations_make_what_the_code_expects(workspace: Workspace) -> None:
    store = open_feedback(workspace)
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == ScriptDirectory.from_config(config()).get_current_head()


def test_migrating_again_changes_nothing_and_back_works(tmp_path: Path) -> None:
    from alembic import command

    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    migrate(engine)
    migrate(engine)
    settings = config()
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.downgrade(settings, "base")
    assert "feedback" not in inspect(engine).get_table_names()
    migrate(engine)
    assert "feedback" in inspect(engine).get_table_names()


@pytest.mark.parametrize("step", ["create_table", "create_index"])
def test_a_kill_while_the_tables_are_made_leaves_a_database_that_the_next_one_completes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from alembic import op

    done = getattr(op, step)

    def aborted(*args: Any, **options: Any) -> None:
        done(*args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(op, step, aborted)
        with pytest.raises(KeyboardInterrupt):
            open_feedback(workspace)
    assert inspect(create_engine(f"sqlite:///{workspace.root / 'feedback.db'}")).get_table_names() == []
    store = open_feedback(workspace)
    assert store.add(thumb()) == 1


def test_a_database_of_a_later_version_is_left_alone(workspace: Workspace) -> None:
    store = open_feedback(workspace)
    with store._engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match=r"9999.*update OwnLM"):
        open_feedback(workspace)


def test_a_database_elsewhere(tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNLM_DATABASE_URL", f"sqlite:///{tmp_path / 'elsewhere' / 'f.db'}")
    open_feedback(workspace).add(thumb())
    assert not (workspace.root / "feedback.db").exists()
    assert open_feedback(f"sqlite:///{tmp_path / 'elsewhere' / 'f.db'}").count() == 1


@pytest.mark.parametrize(
    "url", ["nonsense", "marsdb://user:secretword@host/db", "postgresql+nothing://u:secretword@h/d"]
)
def test_bad_urls_are_one_sentence_without_the_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("OWNLM_DATABASE_URL", url)
    with pytest.raises(FeedbackError) as caught:
        open_feedback(workspace)
    assert "secretword" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_database_is_told(workspace: Workspace) -> None:
    workspace.root.mkdir(parents=True)
    (workspace.root / "feedback.db").write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(FeedbackError, match="feedback.db cannot be used: file is not a database"):
        open_feedback(workspace)
