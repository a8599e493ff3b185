"""How much faster and smaller is a quantised model than the same in bf16, one answer at a time?

    python benchmarks/model_quantised.py [--quick] [--rounds N] [--threads N]

A random model of 0.5 billion parameters, with the sizes of Qwen2.5-0.5B (24 layers of 896, 14 query and 2 key/value
heads of 64, feed-forward 4864, vocabulary 151,936, tied) and Qwen3's norms, is written to disk once in bf16. Each
figure comes from processes of its own that open it (bf16 as it is; int8 and int4 quantised at load) and answer a prompt
of 16 tokens greedily with OwnLM's engine in bf16. The time is that between tokens, the prompt left out: the lower
quartile of a process (what else the machine does only ever adds to it), then the median of the rounds' ratios. Memory
is what the process holds while it answers (anonymous and mapped) above a process that has imported torch and done
nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

from _harness import Figure, arguments, in_child, median, report, run_child, versions

PRECISIONS = ("bfloat16", "int8", "int4:64")
VOCABULARY = 151_936
PROMPT = 16


class Numbers:
    """A stand-in for a tokenizer: a token is its number, and none ends an answer."""

    vocab_size, stops, prefix, special = VOCABULARY, frozenset[int](), (0,), MappingProxyType({})

    def decoder(self, continues: bool = False) -> Numbers:
        """Itself."""
        return self

    def add(self, identifier: int) -> str:
        """A text that differs from token to token."""
        return f" {identifier}"

    def finish(self) -> str:
        """Nothing is left."""
        return ""


def resident() -> int:
    """Bytes that this process holds in memory: its own and those of mapped files."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


def write(folder: str) -> dict[str, Any]:
    """The random model, in bf16."""
    import torch

    from ownlm.model.config import DecoderConfig
    from ownlm.model.decoder import Decoder
    from ownlm.model.files import save_weights

    config = DecoderConfig(VOCABULARY, 24, 896, 14, 2, 64, 4864, 1024)
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder.to_empty(device="cpu").to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim < 2:
                parameter.fill_(1)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
    save_weights(Path(folder), decoder)
    return {"parameters": config.parameters}


def idle() -> dict[str, Any]:
    """The memory of a process that has imported torch."""
    import torch

    return {"resident": resident(), "torch": torch.__version__}


def answer(folder: str, precision: str, tokens: int, threads: int) -> dict[str, Any]:
    """Milliseconds a token, and the memory held meanwhile."""
    from functools import partial

    import torch

    from ownlm.data.chat_format import ChatFormat
    from ownlm.engine.local import LocalModel
    from ownlm.engine.request import ModelFacts, SamplingParams
    from ownlm.model.files import load_model
    from ownlm.model.quantised import Scheme, quantise_module

    torch.set_num_threads(threads)
    replace = None if precision == "bfloat16" else partial(quantise_module, scheme=Scheme.parse(precision))
    started = time.perf_counter()
    decoder = load_model(Path(folder), torch.bfloat16, replace=replace)
    loading = time.perf_counter() - started
    numbers: Any = Numbers()
    model = LocalModel(decoder, numbers, ChatFormat(), ModelFacts("random", "0", decoder.config.context))
    seconds: list[float] = []
    held, before = 0, time.perf_counter()
    for _ in model.stream(list(range(PROMPT)), SamplingParams(max_tokens=tokens, temperature=0)):
        now = time.perf_counter()
        seconds.append(now - before)
        held = max(held, resident())
        before = time.perf_counter()
    steps = sorted(seconds[4:-1])  # without the prompt, what is touched for the first time, and the last event
    return {
        "milliseconds": 1000 * steps[len(steps) // 4], "median": 1000 * median(steps), "resident": held,
        "loading": loading,
    }  # fmt: skip


def main() -> int:
    """Runs all rounds and reports."""
    from ownlm.runtime.threads import thread_budget

    options = arguments(
        "Quantised decoding against bf16.",
        threads=(int, thread_budget(), "threads of the multiplications"),
        tokens=(int, 64, "tokens an answer"),
    )
    if options.child:
        run_child(options.child, {"write": write, "idle": idle, "answer": answer})
        return 0
    rounds = 2 if options.quick else options.rounds
    found: dict[str, list[dict[str, Any]]] = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        made = in_child(__file__, "write", folder=folder)
        print(f"A random model of {made['parameters']:,} parameters; {rounds} rounds, {options.threads} threads.")
        base = median([in_child(__file__, "idle")["resident"] for _ in range(3)])
        for round_ in range(rounds):
            for precision in PRECISIONS:
                one = in_child(
                    __file__, "answer", folder=folder, precision=precision,
                    tokens=32 if options.quick else options.tokens, threads=options.threads,
                )  # fmt: skip
                one["above"] = one["resident"] - base
                found[precision].append(one)
                print(
                    f"round {round_ + 1}  {precision:<9} {one['milliseconds']:6.1f} ms/token (median "
                    f"{one['median']:.1f}), {one['above'] / 1e6:6.0f} MB above idle, loaded in {one['loading']:.1f} s",
                    flush=True,
                )
    figures = []
    for precision in PRECISIONS[1:]:
        pairs = list(zip(found["bfloat16"], found[precision], strict=True))
        targets = (1.6, 0.6) if precision == "int8" else (None, None)
        speed = median([plain["milliseconds"] / one["milliseconds"] for plain, one in pairs])
        memory = median([one["above"] / plain["above"] for plain, one in pairs])
        figures += [
            Figure(f"{precision}: tokens/s", round(speed, 2), "x bf16", targets[0]),
            Figure(f"{precision}: memory above idle", round(memory, 3), "x bf16", targets[1], at_most=True),
        ]
    for precision in PRECISIONS:
        rate = 1000 / median([one["milliseconds"] for one in found[precision]])
        figures.append(Figure(f"{precision}: decoding", round(rate, 1), "tokens/s"))
        figures.append(
            Figure(f"{precision}: memory", round(median([one["above"] for one in found[precision]]) / 1e6), "MB")
        )
    peers = {**versions("torch"), "bf16": "bf16 weights and matmuls, same engine", "threads": options.threads}
    return report("model_quantised", figures, peers, rounds)


if __name__ == "__main__":
    sys.exit(main())
