"""How the processes of one command agree on what to do."""

from __future__ import annotations

from typing import Any

import pytest

from ownlm.recipe.team import Team, launched_team
from ownlm.runtime.errors import Interrupted, OwnLMError
from ownlm.train.world import World


class Heard(World):
    """A world of two whose messages are written down."""

    heard: list[Any] = []

    def broadcast(self, value: Any) -> Any:
        self.heard.append(value)
        return value


@pytest.fixture
def world() -> Heard:
    Heard.heard = []
    return Heard(0, 2)


def test_the_others_hear_of_a_job_once(world: Heard) -> None:
    team = Team(world)
    with team.led():
        team.start("job")
    assert world.heard == ["job"]
    assert (team.main, team.size, team.device) == (True, 2, "cpu")


def test_the_others_hear_that_there_is_nothing_to_do(world: Heard) -> None:
    with Team(world).led():
        pass
    assert world.heard == [None]
    assert Team(Heard(1, 2)).wait() is None


@pytest.mark.parametrize(
    ("error", "code"), [(OwnLMError("no"), 2), (Interrupted(143, "stop"), 143), (ValueError("bug"), 1)]
)
def test_the_others_end_when_the_main_one_fails(world: Heard, error: BaseException, code: int) -> None:
    with pytest.raises(type(error)), Team(world).led():
        raise error
    [ended] = world.heard

    class Told(Heard):
        def broadcast(self, value: Any) -> Any:
            return ended

    with pytest.raises(SystemExit) as stopped:
        Team(Told(1, 2)).wait()
    assert stopped.value.code == code


def test_a_failure_while_all_train_is_not_announced(world: Heard) -> None:
    team = Team(world)
    with pytest.raises(Interrupted), team.led():
        team.start("job")
        raise Interrupted(130, "stopped")
    assert world.heard == ["job"]


def test_one_process_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched_team(1, None) as team, team.led():
        team.start("job")
        assert team.main and team.size == 1 and team.device is None
        assert team.options(("tensorboard",)).world is None
