"""A student's plan, and how long its teacher will be asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import foreign_tokenizers
import tiny
from ownlm.data.tokenizer import Tokenizer
from ownlm.data.tokenizer_files import load_tokenizer
from ownlm.recipe import distilled
from ownlm.recipe.distilled import same_vocabulary, student_plan
from ownlm.recipe.memory import training_memory
from ownlm.recipe.plan import Plan
from ownlm.runtime.errors import BudgetError
from small_run import small_plan

PLAN = dataclasses.replace(small_plan(), seconds=dataclasses.replace(small_plan().seconds, pretrain=60.0), law="a law")


def planned(plan: Plan, step: float) -> tuple[Plan, list[Any]]:
    shapes: list[Any] = []

    def step_seconds(config: Any, *_: Any, **__: Any) -> float:
        shapes.append(config)
        return step

    with mock.patch("ownlm.recipe.measure.step_seconds", step_seconds):
        return student_plan(plan, tiny.tokenizer()), shapes


def test_the_student_has_the_teachers_vocabulary_and_as_many_steps_as_fit() -> None:
    found, [config] = planned(PLAN, 0.1)
    assert found.vocabulary == config.vocabulary == tiny.tokenizer().vocab_size
    assert found.parameters == config.parameters == found.config(found.vocabulary).parameters
    assert found.steps == int(60 / 0.108)
    assert found.forecast.tokens == found.steps * found.batch_tokens
    assert (
        found.forecast.heldout_bits_per_byte == PLAN.forecast.heldout_bits_per_byte and "without a teacher" in found.law
    )
    assert {name: value for name, value, _ in found.reasons}["steps"] == f"{found.steps:,}"


def test_a_large_vocabulary_must_fit_the_memory_too() -> None:
    needed = training_memory(PLAN.config(tiny.tokenizer().vocab_size), PLAN.kernels, PLAN.rows)
    with mock.patch("ownlm.recipe.measure.available_memory", lambda device: int(needed.total)):
        found, _ = planned(PLAN, 0.1)
    assert found.memory is not None and found.memory.fits(needed.total)
    assert found.rows < PLAN.rows and found.batch_tokens == PLAN.batch_tokens
    assert "memory" in {name for name, _, _ in found.reasons}
    with mock.patch("ownlm.recipe.measure.available_memory", lambda device: 1000), pytest.raises(BudgetError):
        planned(PLAN, 0.1)


def test_compilation_is_paid_out_of_the_same_time() -> None:
    compiled = dataclasses.replace(PLAN, kernels=dataclasses.replace(PLAN.kernels, compiled=True))
    assert planned(compiled, 0.1)[0].steps == int(40 / 0.108)


def test_vocabularies_are_compared_token_by_token(tmp_path: Path) -> None:
    ours = tiny.tokenizer()
    ours.save(tmp_path / "saved")
    assert same_vocabulary(ours, load_tokenizer(tmp_path / "saved"))
    ranks = {ours.token_bytes(identifier): identifier for identifier in range(ours.vocab_size - len(ours.special))}
    swapped = ranks | {b"a": ranks[b"b"], b"b": ranks[b"a"]}
    assert same_vocabulary(ours, Tokenizer(ranks, ours.special))
    assert not same_vocabulary(ours, Tokenizer(swapped, ours.special))
    llama, qwen = (load_tokenizer(foreign_tokenizers.write(tmp_path / name, name)) for name in ("llama3", "qwen"))
    assert same_vocabulary(llama, llama) and not same_vocabulary(llama, qwen)


def test_the_time_is_told_once_and_leaves_out_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(distilled.time, "monotonic", lambda: now[0])
    pace = distilled._Pace(10_000)
    assert pace.minutes(4_000) is None  # of which most was done before
    now[0] += 60
    assert pace.minutes(5_000) == pytest.approx(5.0)
    now[0] += 60
    assert pace.minutes(6_000) is None
