"""Four things that a program can do with a model: continue a text, answer, stream, and say how likely a text is.

    python examples/use_a_model.py [MODEL]

MODEL is what every command takes: a name from `ownlm ls`, a folder, `hf:org/name` or `openai:URL#model`.
"""

from __future__ import annotations

import sys

import ownlm


def main(name: str = "first-model") -> None:
    """Prints one of each."""
    model = ownlm.load(name)
    facts = model.facts
    print(f"{facts.name} reads {facts.context} tokens at once.")

    text = "def read_lines(path):\n"
    print(text + model.complete(text, max_tokens=32, temperature=0))

    question = "Write a Python function `def add(first, second):` Return the sum of two numbers."
    print(model.chat(question, max_tokens=48, seed=1))

    for piece in model.stream([{"role": "user", "content": question}], max_tokens=48, seed=1):
        print(piece, end="", flush=True)
    print()

    for line in ("for index in range(10):", "index range in 10 for (:"):
        print(f"{model.score(line).bits_per_byte:.2f} bits per byte: {line}")


if __name__ == "__main__":
    main(*sys.argv[1:])
