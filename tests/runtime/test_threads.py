"""The thread budget: physical cores, within what a container allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownlm.runtime import threads


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("max 100000", None),
        ("200000 100000", 2.0),
        ("50000 100000", 0.5),
        ("", None),
        ("nonsense", None),
        ("1 0", None),
    ],
)
def test_the_limit_of_a_container(tmp_path: Path, content: str, expected: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert threads._container_limit(tmp_path / "cpu.max") == expected
    assert threads._container_limit(tmp_path / "missing") is None


def test_hyper_threads_of_one_core_count_once(tmp_path: Path) -> None:
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert threads._physical_cores(set(range(8)), tmp_path) == 4
    assert threads._physical_cores({0, 4}, tmp_path) == 1
    assert threads._physical_cores({0, 1}, tmp_path / "missing") == 2


def test_a_budget_is_at_least_one_and_at_most_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_allowed_cpus", lambda: set(range(6)))
    monkeypatch.setattr(threads, "_physical_cores", lambda cpus: len(cpus))
    monkeypatch.setattr(threads, "_container_limit", lambda: None)
    assert threads.thread_budget() == 6
    assert threads.thread_budget(0.5) == 3
    assert threads.thread_budget(0.01) == 1
    monkeypatch.setattr(threads, "_container_limit", lambda: 2.0)
    assert threads.thread_budget() == 2
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(ValueError, match="share"):
            threads.thread_budget(share)


def test_on_this_machine() -> None:
    assert threads.thread_budget() >= 1
