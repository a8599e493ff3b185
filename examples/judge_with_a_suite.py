"""Asks a model the cases of a suite of one's own, and prints what failed and why.

    python examples/judge_with_a_suite.py [MODEL] [SUITE.yaml]

The results stay in the workspace as an evaluation artifact, every answer included.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ownlm

SUITE = Path(__file__).with_name("suite.yaml")


def main(name: str = "first-model", suite: str | Path = SUITE) -> None:
    """Runs the suite, or finds the earlier run of the same model and suite."""
    made = ownlm.evaluate(name, suite)
    rate = made.metrics["pass_rate"]
    print(f"{rate['value']:.0%} of {rate['n']} cases pass (95 % interval {rate['low']:.0%} to {rate['high']:.0%}).")
    for line in made.file("samples.jsonl").read_text("utf-8").splitlines():
        answer = json.loads(line)
        if not answer["passed"]:
            print(f"{answer['id']}: {', '.join(answer['reasons'])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
