"""What is asked of a run while it trains, from other processes and from keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.signals import Interruption
from ownlm.train.control import (
    EXTRA_SECONDS,
    AnyOf,
    FileControl,
    Finish,
    KeyControl,
    More,
    Wish,
    ask_finish,
    ask_more,
    listens,
    sentence,
    waiting,
)
from ownlm.train.loop import TrainSettings, train
from ownlm.train.pretrain import PretrainObjective
from ownlm.train.schedule import Schedule
from ownlm.train.turns import Change, read_changes


def test_wishes_are_taken_once_and_in_their_order(tmp_path: Path) -> None:
    control = FileControl(tmp_path)
    assert control.asked() == []
    ask_more(tmp_path, 60)
    ask_finish(tmp_path)
    ask_more(tmp_path)
    wanted = [More(60.0), Finish(), More(EXTRA_SECONDS)]
    assert waiting(tmp_path) == wanted
    assert waiting(tmp_path) == wanted, "looking takes nothing"
    assert control.asked() == wanted
    assert control.asked() == waiting(tmp_path) == []
    ask_finish(tmp_path)
    assert control.asked() == [Finish()]


def test_another_process_asks(tmp_path: Path) -> None:
    control = FileControl(tmp_path)
    code = "import sys; from pathlib import Path; from ownlm.train.control import ask_more; ask_more(Path(sys.argv[1]))"
    code += "; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert control.asked() == [More(EXTRA_SECONDS)]


def test_what_was_asked_while_the_run_was_cut_off_is_taken_when_it_goes_on(tmp_path: Path) -> None:
    FileControl(tmp_path)
    ask_finish(tmp_path)
    assert FileControl(tmp_path).asked() == [Finish()]


def test_asking_where_nobody_listens_is_refused(tmp_path: Path) -> None:
    assert not listens(tmp_path)
    for ask in (ask_finish, ask_more):
        with pytest.raises(OwnLMError, match=r"No run listens in .*: it has ended"):
            ask(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert waiting(tmp_path) == []
    FileControl(tmp_path)
    assert listens(tmp_path)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9, 10**400, True, "300", None])
def test_impossible_seconds_are_refused_and_never_taken(tmp_path: Path, seconds: object) -> None:
    control = FileControl(tmp_path)
    with pytest.raises(OwnLMError, match="seconds more"):
        ask_more(tmp_path, seconds)  # type: ignore[arg-type]
    (tmp_path / "control" / "1.json").write_text(json.dumps({"wish": "more", "seconds": seconds}), "utf-8")
    assert control.asked() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"wish": "stop"}', b'{"wish": "more"}', b"\xff\xfe"])
def test_a_broken_file_is_no_wish_and_hides_none(tmp_path: Path, content: bytes) -> None:
    control = FileControl(tmp_path)
    (tmp_path / "control" / "0.json").write_bytes(content)
    ask_finish(tmp_path)
    assert waiting(tmp_path) == [Finish()]
    assert control.asked() == [Finish()]
    assert os.listdir(tmp_path / "control") == []


def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    control = FileControl(tmp_path)
    half = tmp_path / "control" / ".1.json.abc.tmp"
    half.write_text('{"wish": "fin', "utf-8")
    assert control.asked() == []
    assert half.exists()


def test_a_file_that_cannot_be_removed_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = FileControl(tmp_path)
    ask_more(tmp_path)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    assert control.asked() == [More(EXTRA_SECONDS)]
    assert control.asked() == []


def test_a_folder_that_somebody_removed_does_not_stop_the_run(tmp_path: Path) -> None:
    control = FileControl(tmp_path)
    (tmp_path / "control").rmdir()
    assert control.asked() == []


def test_keys(tmp_path: Path) -> None:
    pressed = iter(["", "x f", "++F", ""])
    control = KeyControl(lambda: next(pressed))
    assert [control.asked() for _ in range(4)] == [[], [Finish()], [More(300.0), More(300.0)], []]


def test_several_sources_are_one_and_each_wish_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    files = FileControl(tmp_path)
    control = AnyOf([KeyControl(lambda: "f"), files], told.append)
    ask_more(tmp_path, 90)
    wishes: list[Wish] = [Finish(), More(90.0)]
    assert control.asked() == wishes
    assert told == [sentence(wish) for wish in wishes]
    assert "1.5 minutes" in told[1]
    assert AnyOf([files]).asked() == []


def test_a_run_finishes_when_another_process_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ownlm.train.loop._Run._awake", lambda self, seconds: 1.0)
    control, interruption = FileControl(tmp_path / "state"), Interruption()

    def ask(row: dict[str, Any]) -> None:
        if row["step"] == 20:
            ask_finish(tmp_path / "state")

    ids = np.asarray(tiny.tokenizer().encode("".join(tiny.CORPUS) * 3), dtype=np.uint16)
    objective = PretrainObjective(ids, "print", context=16, rows=2, seed=3)
    settings = TrainSettings(Schedule(60))
    result = train(
        tiny.decoder(), objective, settings, tmp_path, tmp_path / "state", interruption, None, ask, control=control
    )
    assert result.steps == 22
    assert read_changes(tmp_path / "state") == [Change(20, fall=2)]
    assert waiting(tmp_path / "state") == []
