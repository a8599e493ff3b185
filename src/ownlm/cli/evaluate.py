"""`ownlm eval`: a suite of questions or texts, run on a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ownlm.cli.common import ModelArgument, Precision, Quantize, existing_file, verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(
    screen: Screen,
    model: ModelArgument,
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="The suite's YAML file.")],
    precision: Precision = "auto",
    quantize: Quantize = None,
) -> None:
    """Measure a model with a suite."""
    existing_file(suite, "a suite in YAML")
    from ownlm.engine.open import Weights
    from ownlm.evaluate.run import evaluate

    evaluation = evaluate(model, suite, workspace(), screen, Weights(precision, quantize))
    screen.next(f"ownlm show {evaluation.id}", "the figures and where they came from")
    screen.result({"id": evaluation.id, "path": str(evaluation.path), "metrics": evaluation.metrics})
