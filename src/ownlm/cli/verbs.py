"""The verbs of the command line: which file holds each, and what one line says about it.

`ownlm --help` is printed from this table alone, so that it imports no command.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """`file` of this folder, and a sentence for the list."""

    file: str
    summary: str


PANELS: dict[str, dict[str, Verb]] = {
    "Build a model": {
        "demo": Verb("demo", "from nothing to a model of your own, in minutes"),
        "run": Verb("run", "run a recipe: what is built is reused, what was cut off goes on"),
        "pretrain": Verb("pretrain", "train a base model from documents, another model or a teacher"),
        "plan": Verb("plan", "forecast size, tokens, time and loss before any training"),
        "align": Verb("align", "align a model with preference pairs"),
    },
    "Use it": {
        "chat": Verb("chat", "talk with a model"),
        "complete": Verb("complete", "continue a text"),
        "serve": Verb("serve", "an OpenAI-compatible API at /v1, and the Studio at /"),
    },
    "Bring models, take them along": {
        "import": Verb("import_model", "bring in a model: hf:ORG/NAME, a folder or a GGUF file"),
        "export": Verb("export", "write a model for transformers, vLLM or llama.cpp"),
        "adapter": Verb("adapter", "merge an adapter into its base"),
    },
    "Judge it": {
        "eval": Verb("evaluate", "measure a model with a suite"),
        "report": Verb("report", "write a model's report and its model card"),
        "data": Verb("data", "look at the documents that models learn from"),
        "tokenizer": Verb("tokenizer", "look at how text becomes tokens"),
    },
    "Keep house": {
        "ls": Verb("ls", "list what was built"),
        "show": Verb("show", "all about one artifact, or what a model is made of"),
        "lineage": Verb("lineage", "what it was made from, back to the documents"),
        "verify": Verb("verify", "check that its files are what was written"),
        "rm": Verb("rm", "remove it"),
        "doctor": Verb("doctor", "look this machine over: device, rates, browser, port, disk"),
    },
}
VERBS: dict[str, Verb] = {name: verb for verbs in PANELS.values() for name, verb in verbs.items()}
