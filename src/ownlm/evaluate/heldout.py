"""Everything that is measured on held-out documents, beside its yardsticks, in one result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ownlm.data.document import Document
from ownlm.engine.request import LanguageModel
from ownlm.evaluate.bits_per_byte import BitsPerByte, Encoding, NgramScorer, bits_per_byte, difference
from ownlm.evaluate.completers import ModelCompleter, NgramCompleter, Tokens, WordCompleter
from ownlm.evaluate.compression import XzSizes
from ownlm.evaluate.keystrokes import KeystrokesSaved, advantage, replay, take_excerpts
from ownlm.evaluate.ngram import NgramModel
from ownlm.evaluate.run import SuiteResult, run_suite, write_samples
from ownlm.evaluate.suite import Suite
from ownlm.runtime import atomic
from ownlm.runtime.progress import Screen
from ownlm.score.intervals import Interval

RULE = (
    "Held-out files are typed again in a simulated editor. One key accepts the whole proposal (at most the rest of "
    "the line) or its next word, when that is what the file says and spares two characters or more; wrong proposals "
    "cost nothing. All completers see the same text and follow the same rule."
)


class Tokenizing(Tokens, Encoding, Protocol):
    """What the yardsticks need of a tokenizer."""


@dataclass(frozen=True)
class Keystrokes:
    """Keystrokes saved by the three completers on the same excerpts."""

    model: KeystrokesSaved
    ngram: KeystrokesSaved
    words: KeystrokesSaved

    def to_json(self) -> dict[str, Any]:
        """Each completer's share with its interval, and the paired advantages of the model."""
        return {
            "model": self.model.to_json(),
            "ngram": self.ngram.to_json(),
            "words": self.words.to_json(),
            "model_minus_ngram": advantage(self.model, self.ngram).to_json(),
            "model_minus_words": advantage(self.model, self.words).to_json(),
            "excerpts": len(self.model.keys),
            "characters": sum(self.model.characters),
            "rule": RULE,
        }


@dataclass(frozen=True)
class HeldoutResult:
    """What `results.json` of an evaluation on held-out documents holds.

    {"bits_per_byte": {"model": I, "ngram": I, "xz_cold": x, "xz_primed": x, "model_minus_ngram": I, "ngram_order": n},
     "by_kind": {kind: {"model": I, "ngram": I}}, "keystrokes": {...}, "suite": {...}, "notes": [...]}

    where I is {"value", "low", "high", "n"} (for bits per byte also "bytes" and "by_kind").
    """

    model: BitsPerByte
    ngram: BitsPerByte
    ngram_order: int
    xz: XzSizes | None
    keystrokes: Keystrokes | None
    suite: SuiteResult | None

    @property
    def model_minus_ngram(self) -> Interval:
        """The paired difference in bits per byte; below zero the model is better."""
        return difference(self.model, self.ngram)

    def to_json(self) -> dict[str, Any]:
        """As described above; absent parts are None."""
        return {
            "bits_per_byte": {
                "model": self.model.to_json(),
                "ngram": self.ngram.to_json(),
                "ngram_order": self.ngram_order,
                "xz_cold": self.xz.cold_bits_per_byte if self.xz else None,
                "xz_primed": self.xz.primed_bits_per_byte if self.xz else None,
                "model_minus_ngram": self.model_minus_ngram.to_json(),
            },
            "by_kind": {
                kind: {"model": self.model.by_kind[kind].to_json(), "ngram": self.ngram.by_kind[kind].to_json()}
                for kind in self.model.by_kind
            },
            "keystrokes": self.keystrokes.to_json() if self.keystrokes else None,
            "suite": self.suite.to_json() if self.suite else None,
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """What exactly was measured, in sentences."""
        notes = [
            f"Bits per byte: minus log2 of the probability of {self.model.total.n} held-out documents "
            f"({self.model.bytes:,} bytes of UTF-8) over their bytes; intervals resample whole documents.",
            f"The n-gram model is an interpolated modified Kneser-Ney model of order {self.ngram_order} over the same "
            "tokens of the same training text.",
        ]
        if self.xz:
            notes.append("xz cold: `xz -9` on the held-out documents joined.")
        if self.xz and self.xz.primed_bits_per_byte is not None:
            notes.append(
                "xz primed: size of `xz -9` on training and held-out text together minus that on the training text "
                "alone, with a dictionary that holds all of it."
            )
        if self.keystrokes:
            notes.append(f"Keystrokes saved: {RULE}")
        return notes

    def write(self, folder: Path) -> None:
        """`results.json`, and `samples.jsonl` when a suite was run."""
        atomic.write_json(folder / "results.json", self.to_json())
        if self.suite:
            write_samples(folder / "samples.jsonl", self.suite)


def run_heldout(
    *,
    model: LanguageModel,
    ngram: NgramModel,
    tokenizer: Tokenizing,
    train: Sequence[Document],
    heldout: Sequence[Document],
    xz: Future[XzSizes] | None = None,
    suite: Suite | None = None,
    seed: int = 0,
    excerpts: int = 60,
    characters: int = 130,
    screen: Screen | None = None,
) -> HeldoutResult:
    """Measures a model and its yardsticks on the same held-out documents.

    Args:
        model: the model under test.
        ngram: trained on the same tokens.
        tokenizer: the one of the n-gram model.
        train: training documents, for the word list.
        heldout: held-out documents; those of `xz` should be the same.
        xz: what `start_primed` returned; waited for at the end.
        suite: asked with its own sampling.
        seed: of excerpts and bootstraps.
        excerpts: pieces for keystrokes saved; 0 leaves that measurement out.
        characters: of each piece. With the defaults a model of five million
            parameters works for about 40 seconds of one core.
        screen: gets one sentence a measurement.

    Raises:
        ValueError: no held-out text, or log-probabilities that are not finite.
    """
    say = (screen or Screen(quiet=True)).say
    ours = bits_per_byte(model, heldout, seed)
    theirs = bits_per_byte(NgramScorer(ngram, tokenizer), heldout, seed)
    say(
        f"Held-out text costs the model {ours.total.value:.3f} bits per byte, "
        f"the n-gram model {theirs.total.value:.3f}."
    )
    keystrokes = None
    pieces = take_excerpts(heldout, seed, excerpts, characters) if excerpts else []
    if pieces:
        words = WordCompleter.train(document.text for document in train)
        keystrokes = Keystrokes(
            replay(ModelCompleter(model), pieces, seed),
            replay(NgramCompleter(ngram, tokenizer), pieces, seed),
            replay(words, pieces, seed),
        )
        say(
            f"Its completions save {keystrokes.model.share.value:.1%} of the keystrokes, the n-gram model's "
            f"{keystrokes.ngram.share.value:.1%}, a word list's {keystrokes.words.share.value:.1%}."
        )
    asked = run_suite(model, suite, seed) if suite else None
    if asked:
        say(f"It passes {asked.pass_rate.value:.0%} of the {asked.pass_rate.n} cases of {asked.name}.")
    sizes = xz.result() if xz else None
    if sizes:
        primed = sizes.primed_bits_per_byte
        also = f", primed with the training text {primed:.3f}" if primed is not None and math.isfinite(primed) else ""
        say(f"xz -9 needs {sizes.cold_bits_per_byte:.3f} bits per byte cold{also}.")
    return HeldoutResult(ours, theirs, len(ngram.orders), sizes, keystrokes, asked)
