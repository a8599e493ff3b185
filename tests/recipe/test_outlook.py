"""Forecasts for machines that are not here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownlm.cli.main import main
from ownlm.recipe.laws import alias
from ownlm.recipe.machines import GPUS, Rent
from ownlm.recipe.outlook import look_ahead, people
from ownlm.recipe.scaling import PUBLISHED, Forecaster
from ownlm.recipe.texts import Text
from ownlm.runtime.errors import BudgetError
from ownlm.store.workspace import Workspace


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return told


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plan", *arguments]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("flops", [1e19, 1e21, 1e23])
def test_the_size_is_the_published_optimum(flops: float) -> None:
    """The minimum of `a/N^alpha + b/D^beta` at `6 N D = C` in closed form (Hoffmann et al. 2022, equation 4)."""
    found = look_ahead(lambda width: flops, Forecaster(PUBLISHED), Text())
    alpha, beta, a, b = 0.3478, 0.3658, 482.01, 2085.43
    best = (alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))
    # The ladder is coarse, attention costs as well, and larger sizes have larger vocabularies.
    assert found.config.matmul_parameters == pytest.approx(best, rel=0.5)
    assert found.config.training_flops_per_token(found.config.context) * found.tokens == pytest.approx(flops)


def test_more_compute_takes_larger_models_and_forecasts_less(capsys: pytest.CaptureFixture[str]) -> None:
    told = [ask(capsys, "--flops", f"{flops:g}") for flops in (1e18, 1e20, 1e22)]
    for name in ("parameters", "tokens", "batch_tokens", "steps"):
        values = [each[name] for each in told]
        assert values == sorted(values), name
        assert values[0] < values[-1]
    losses = [each["forecast"]["bits_per_byte"] for each in told]
    assert losses == sorted(losses, reverse=True)
    assert all(each["machine"] is None and each["memory"] is None for each in told)


def test_small_budgets_are_forecast_by_the_small_law(capsys: pytest.CaptureFixture[str]) -> None:
    assert "OwnLM's own runs" in ask(capsys, "--flops", "3e13")["law"]
    assert "Besiroglu" in ask(capsys, "--flops", "1e20")["law"]


def test_forty_eight_dollars_of_h100(capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "--gpu", "h100", "--hours", "2", "--dollars", "48")
    assert told["machine"]["count"] == 8
    assert told["machine"]["dollars"] == 48
    assert told["memory"]["total"] < GPUS["h100"].memory
    assert told["flops"] == pytest.approx(8 * 989e12 * 0.4 * 7200, rel=0.05)
    assert main(["plan", "--gpu", "h100", "--hours", "2", "--dollars", "48"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("8 h100s for 2 hours ($48 at $3.00 an hour each)", "assumed, of the datasheet's rate", "989 TFLOP/s"):
        assert words in out


def test_a_small_memory_takes_recomputation_or_a_smaller_model() -> None:
    def operations(width: int) -> float:
        return 1e22

    told, text = Forecaster(PUBLISHED), Text()
    free = look_ahead(operations, told, text)
    tight = look_ahead(operations, told, text, rented=Rent(GPUS["l4"], 1, 1e4))
    assert tight.memory is not None and tight.memory.total < GPUS["l4"].memory
    assert tight.config.parameters < free.config.parameters
    many = look_ahead(operations, told, text, rented=Rent(GPUS["l4"], 64, 1e4))
    assert many.config.parameters > tight.config.parameters
    with pytest.raises(BudgetError, match="Not even the smallest model fits the memory of 1 x none"):
        look_ahead(operations, told, text, rented=Rent(type(GPUS["l4"])("none", 1e12, 1e6, 1e9, 1, ""), 1, 1))


def test_a_corpus_is_read_again_and_again(capsys: pytest.CaptureFixture[str], workspace: Workspace) -> None:
    workspace.make("corpus", "notes", lambda build: {"bytes": 120_000_000, "heldout_bytes": 20_000_000})
    free, bound = ask(capsys, "--flops", "1e18"), ask(capsys, "--flops", "1e18", "--corpus", "notes")
    reasons = {name: (value, why) for name, value, why in bound["reasons"]}
    assert "of 100 million" in reasons["text"][1] and "counts as" in reasons["text"][1]
    assert "all different" in {name: why for name, _, why in free["reasons"]}["text"]
    assert complaint(capsys, "--flops", "1e18", "--corpus", "nothing").startswith(
        "Error: The corpus 'nothing' is not known"
    )


def test_repeating_a_small_corpus_costs() -> None:
    def operations(width: int) -> float:
        return 1e20

    told = Forecaster(PUBLISHED)
    free, bound = (look_ahead(operations, told, Text(), distinct) for distinct in (1e15, 1e8))
    assert bound.estimate.bits_per_byte > 1.2 * free.estimate.bits_per_byte
    assert bound.config.parameters >= free.config.parameters, "what cannot be read anew goes into the size"


def test_a_fitted_law_is_used(capsys: pytest.CaptureFixture[str], workspace: Workspace, tmp_path: Any) -> None:
    table = tmp_path / "runs.csv"
    rows = [
        f"{n:g},{d:g},{1 + (n / 1e6) ** -0.4 + (d / 1e6) ** -0.3}" for n in (1e6, 3e6, 9e6) for d in (1e6, 9e6, 5e7)
    ]
    table.write_text("\n".join(["parameters,bytes,bits_per_byte", *rows]), "utf-8")
    assert main(["plan", "--fit", str(table)]) == 0
    assert alias("any") in workspace.aliases()
    capsys.readouterr()
    assert ask(capsys, "--flops", "1e14")["law"] == "a law fitted to 9 runs"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--flops", "1"], "forecasts reach from 1e+11 to 1e+27"),
        (["--flops", "nan"], "forecasts reach from"),
        (["--flops", "1e18", "--gpu", "h100", "--hours", "2"], "--flops does not go with --gpu"),
        (["--flops", "1e18", "--minutes", "2"], "--minutes does not go with --flops"),
        (["--flops", "1e18", "--device", "cpu"], "--device does not go with --flops"),
        (["--gpu", "h100"], "--gpu needs a budget"),
        (["--gpu", "abacus", "--hours", "2"], "--gpu abacus: its datasheet is not known"),
        (["--hours", "2"], "--hours is about rented GPUs: add --gpu"),
        (["--flops", "1e18", "--count", "2"], "--count is about rented GPUs"),
        (["--fit", "--gpu", "h100"], "--gpu does not go with --fit"),
        (["--fit", "--minutes", "5"], "--minutes does not go with --fit"),
        (["points.csv"], "points.csv: a table of runs is only read with --fit"),
        (["--fit", "nothing.csv"], "nothing.csv is not a file"),
        (["--device", "abacus"], "There is no corpus to plan for yet"),
    ],
)
def test_what_does_not_go_together(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert words in complaint(capsys, *arguments)


def test_numbers_for_people() -> None:
    assert [people(each) for each in (999, 1.5e6, 2.34e10, 5e12)] == [
        "999",
        "1.5 million",
        "23.4 billion",
        "5 trillion",
    ]
