import sys

import pytest

from ownlm.runtime import memory


def test_memory_is_given_back_where_the_library_can() -> None:
    assert memory.give_back() is (sys.platform == "linux") or memory._malloc_trim() is None


def test_without_such_a_function_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)
    assert not memory.give_back()
