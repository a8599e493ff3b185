"""What the training stages share: threads, the live bar, samples while training, and held-out loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ownlm.data.corpus import read_documents
from ownlm.data.document import Document
from ownlm.data.tokenizer_protocol import AnyTokenizer
from ownlm.engine.local import LocalModel
from ownlm.engine.request import ModelFacts, SamplingParams
from ownlm.engine.scoring import token_logprobs
from ownlm.model.decoder import Decoder
from ownlm.model.kernels import eager
from ownlm.recipe.context import RunContext
from ownlm.recipe.plan import Plan
from ownlm.runtime import atomic
from ownlm.runtime.errors import DiskFull
from ownlm.runtime.seeds import derive_seed
from ownlm.train.metrics import read_rows

SAMPLES = "samples.jsonl"
SAMPLE_TOKENS = 48


def set_threads(plan: Plan) -> None:
    """Gives torch the plan's threads, and flushes denormal numbers to zero: some processors are slow at them."""
    torch.set_num_threads(plan.threads)
    torch.set_flush_denormal(True)


@contextmanager
def live_bar(context: RunContext, label: str, steps: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A progress bar that shows loss, speed, share of the machine and time left of each metrics row."""
    with context.screen.bar(label, steps, "steps") as bar:

        def show(row: dict[str, Any]) -> None:
            bar.total = row["steps"]  # it may have been told to finish, or to go on for longer
            bits = row.get("bits_per_byte")
            loss = f"{bits:.2f} bits/byte" if bits is not None else f"loss {row['loss']:.3f}"
            used = f" · {row['utilisation']:.0%} of matmul rate" if row.get("utilisation") else ""
            note = f"{loss} · {row['tokens_per_second']:,} tokens/s{used} · {row['remaining']:.0f} s left"
            bar.update(row["step"], note)

        yield show


def sample_hook(context: RunContext, folder: Path, tokenizer: AnyTokenizer) -> Sampler:
    """Continues three fixed prompts after 0, 10, 100, 1,000 ... updates and at the end, into `samples.jsonl`."""
    return Sampler(folder / SAMPLES, context.main_kit.watch_prompts(), tokenizer, context.recipe.seed)


class Sampler:
    """Called before every update with the number of updates done; `last` is for the end, whenever that comes."""

    def __init__(self, path: Path, prompts: Sequence[str], tokenizer: AnyTokenizer, seed: int) -> None:
        self._path, self._prompts, self._tokenizer, self._seed = path, prompts, tokenizer, seed
        self._rows = read_rows(path)

    def __call__(self, step: int, decoder: Decoder) -> None:
        """Samples after 0, 10, 100, 1,000 ... updates."""
        if step == 0 or (step >= 10 and str(step).strip("0") == "1"):
            self.last(step, decoder)

    def last(self, step: int, decoder: Decoder) -> None:
        """Samples now, unless that was done for this step before."""
        if any(row["step"] == step for row in self._rows):
            return
        from ownlm.data.chat_format import ChatFormat

        facts = ModelFacts("watch", "watch", decoder.config.context)
        model = LocalModel(decoder, self._tokenizer, ChatFormat(), facts)
        params = SamplingParams(max_tokens=SAMPLE_TOKENS, temperature=0.7, top_p=0.95, seed=self._seed)
        answers = model.generate(self._prompts, params)
        decoder.train()
        self._rows += [
            {"step": step, "prompt": prompt, "text": answer.text}
            for prompt, answer in zip(self._prompts, answers, strict=True)
        ]
        try:
            atomic.write_text(self._path, "".join(json.dumps(row) + "\n" for row in self._rows))
        except DiskFull:  # they are written with the next ones
            pass


def heldout_sample(context: RunContext, limit: int) -> list[Document]:
    """Held-out documents of the run's corpus of about `limit` bytes in all; see `heldout_documents`."""
    return heldout_documents(context.path("corpus"), limit, context.recipe.seed)


def heldout_documents(corpus: Path, limit: int, seed: int) -> list[Document]:
    """Held-out documents of a corpus of about `limit` bytes in all, by a seeded order, each kind in its share."""
    documents = read_documents(corpus, "heldout")
    documents.sort(key=lambda document: derive_seed(seed, "heldout", document.sha256))
    total = sum(document.bytes for document in documents)
    chosen: list[Document] = []
    for kind in sorted({document.kind for document in documents}):
        same = [document for document in documents if document.kind == kind]
        budget, taken = limit * sum(document.bytes for document in same) / total, 0
        for document in same:
            if taken and taken + document.bytes > budget:
                continue
            chosen.append(document)
            taken += document.bytes
    return chosen


def measure_heldout(context: RunContext, decoder: Decoder, tokenizer: AnyTokenizer) -> dict[str, Any]:
    """Held-out bits per byte in all and by kind, on the plan's sample of the held-out documents."""
    return measure(decoder, tokenizer, heldout_sample(context, context.plan.heldout_bytes))


def measure(decoder: Decoder, tokenizer: AnyTokenizer, documents: Sequence[Document]) -> dict[str, Any]:
    """Bits per byte of documents in all and by kind, each read after what stands before a text."""
    start = (tokenizer.prefix or (tokenizer.end_of_text,))[-1]
    with eager(decoder):
        found = token_logprobs(decoder, [tokenizer.encode(d.text) for d in documents], start)
    kinds: dict[str, list[float]] = {}
    for document, values in zip(documents, found, strict=True):
        bits, size = kinds.setdefault(document.kind, [0.0, 0.0])
        kinds[document.kind] = [bits - float(values.sum(dtype="float64")) / 0.6931471805599453, size + document.bytes]
    bits, size = (sum(values[i] for values in kinds.values()) for i in (0, 1))
    return {
        "heldout_bits_per_byte": round(bits / size, 5),
        "heldout_by_kind": {kind: round(bits / size, 5) for kind, (bits, size) in kinds.items()},
        "heldout_bytes": int(size),
    }
