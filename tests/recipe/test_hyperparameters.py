from pathlib import Path

import pytest

from ownlm.recipe.hyperparameters import Hyperparameters
from ownlm.recipe.schema import load_recipe
from ownlm.runtime.errors import OwnLMError
from ownlm.train.batching import BatchRamp
from ownlm.train.optimisers import Rates

WORDS = [
    "schedule=cosine", "warmup=0.1", "learning_rate=0.5", "cautious=yes", "documents_apart=true", "momentum_warmup=50",
    "batch_halvings=2", "first_context=128", "z_loss=1e-4", "neuron_beta=0.95", "weight_decay=0.1",
    "float8=on",
]  # fmt: skip
CHOSEN = Hyperparameters(
    "cosine", 0.1, None, 0.5, 0.1, 0.95, True, 50, 2, 128, True, 1e-4, True
)  # fmt: skip


def test_words_of_the_command_line() -> None:
    assert Hyperparameters.parse(WORDS) == CHOSEN
    assert Hyperparameters.parse([]) == Hyperparameters() and Hyperparameters().changed() == {}
    assert set(CHOSEN.changed()) == {word.split("=")[0] for word in WORDS}


def test_they_reach_schedule_rates_and_objective() -> None:
    schedule = CHOSEN.course(100, 0.03, 0.4)
    assert (schedule.kind, schedule.steps, schedule.warmup, schedule.decay) == ("cosine", 100, 0.1, 0.4)
    assert Hyperparameters(decay=0.2).course(100, 0.03, 0.4).decay == 0.2
    rates = CHOSEN.rates(Rates())
    assert rates == Rates(
        0.005, 0.02, 0.02, 0.02, momentum_warmup=50, neuron_beta=0.95, cautious=True, weight_decay=0.1
    )
    assert CHOSEN.objective(100) == {
        "mask_documents": True, "short_context": (33, 128), "z_loss": 1e-4, "ramp": BatchRamp(25, 2),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("schedule", "NAME=VALUE was expected"),
        ("shedule=wsd", "there is no 'shedule'. Did you mean schedule"),
        ("schedule=step", "schedule is one of wsd, cosine, linear, not 'step'"),
        ("cautious=1", "cautious is true or false, not '1'"),
        ("z_loss=-1", "z_loss is a number between 0 and 1, not '-1'"),
        ("momentum_warmup=1.5", "momentum_warmup is a whole number between 0"),
        ("warmup=nan", "warmup is a number between 0 and 0.9"),
        ("decay=soon", "decay is a number between 0 and 1"),
    ],
)
def test_what_cannot_be(word: str, message: str) -> None:
    with pytest.raises(OwnLMError) as caught:
        Hyperparameters.parse([word])
    assert message in str(caught.value) and f"--set {word}" in str(caught.value)


def test_in_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sources: python\npretrain:\n  schedule: linear\n  documents_apart: true\n")
    assert load_recipe(path).pretrain == Hyperparameters("linear", documents_apart=True)
    for line, message in (
        ("z_los: 1", "z_los"),
        ("z_loss: high", "z_loss is a number"),
        ("cautious: 3", "true or false"),
    ):
        path.write_text(f"sources: python\npretrain:\n  {line}\n")
        with pytest.raises(OwnLMError, match=message) as caught:
            load_recipe(path)
        assert "mine.yaml:3" in str(caught.value) or "line 3" in str(caught.value)
