"""How fast and in how much memory does a 25-million-parameter decoder train, against transformers' Trainer?

    python benchmarks/pretrain_throughput.py [--quick] [--layers 8] [--width 512] [--rows 32]

The same shape (8 layers of 512, vocabulary 8,192, context 512) and the same batch for all, bf16 matmuls: OwnLM's loop
with the kernels that its plan would choose, 8 windows at a time; transformers' Trainer with `bf16=True` and fused
AdamW, given the batch as it is, and 8 windows at a time with accumulation, where it is faster; and that with
`torch_compile=True`. Tokens a second are those of the later half of the steps; compiling is left out for both, and a
second start of OwnLM is timed with its compiler's cache. The matmul rate is the best of square multiplications in this
run; utilisation counts 6 x matmul parameters + causal attention, no embedding lookup, no recomputation.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _harness import Figure, arguments, in_child, median, report, run_child, versions

CONTEXT, VOCABULARY = 512, 8192
TOGETHER = 8
"""Rows that OwnLM works on at once, as its plans do; larger batches are summed up."""


def peak_megabytes() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def token_ids() -> Any:
    """A stream of random tokens."""
    import numpy as np

    return np.random.default_rng(0).integers(0, VOCABULARY, 4_000_000, dtype=np.uint16)


def best_rate(seconds: float) -> dict[str, float]:
    """The best bf16 matmul rate, GFLOP/s."""
    import torch

    from ownlm.runtime.device import matmul_gflops

    torch.set_num_threads(os.cpu_count() or 1)
    return {"gflops": matmul_gflops("cpu", torch.bfloat16, seconds)}


def ours(
    layers: int, width: int, heads: int, kv_heads: int, rows: int, steps: int, compiled: bool, cache: str
) -> dict[str, float]:
    """OwnLM's loop: tokens a second of the later half, seconds to the end of the first step, peak memory."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    import torch

    from ownlm.model.config import DecoderConfig
    from ownlm.model.decoder import Decoder, initialise
    from ownlm.model.kernels import Kernels, use
    from ownlm.runtime.signals import Interruption
    from ownlm.train.loop import TrainSettings, train
    from ownlm.train.pretrain import PretrainObjective
    from ownlm.train.schedule import Schedule

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)
    config = DecoderConfig(VOCABULARY, layers, width, heads, kv_heads, width // heads, width * 11 // 4, CONTEXT)
    decoder = use(Decoder(config), Kernels("bfloat16", "tiled", compiled))
    initialise(decoder, 0)
    together = min(rows, TOGETHER)
    objective = PretrainObjective(token_ids(), "random", CONTEXT, together, rows // together)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(Schedule(steps), checkpoint_seconds=1e9)
        begun = time.perf_counter()
        train(
            decoder, objective, settings, Path(folder), Path(folder), Interruption(),
            on_metrics=lambda _: times.append(time.perf_counter()),
        )  # fmt: skip
    half = len(times) // 2 - 1
    return {
        "tokens_per_second": (len(times) - 1 - half) * rows * CONTEXT / (times[-1] - times[half]),
        "first_step": times[0] - begun,
        "megabytes": peak_megabytes(),
        "parameters": config.parameters,
        "flops_per_token": config.training_flops_per_token(CONTEXT),
    }


def trainer(
    layers: int, width: int, heads: int, kv_heads: int, rows: int, steps: int, compiled: bool, together: int
) -> dict[str, float]:
    """transformers' Trainer on its Qwen3 of the same shape, `together` rows at a time."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=width // heads,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True, use_cache=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    ids = token_ids()

    class Windows(torch.utils.data.Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(ids) // CONTEXT - 1

        def __getitem__(self, index: int) -> dict[str, Any]:
            window = torch.from_numpy(ids[index * CONTEXT : (index + 1) * CONTEXT].astype("int64"))
            return {"input_ids": window, "labels": window}

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=together,
            gradient_accumulation_steps=rows // together, max_steps=steps, bf16=True, optim="adamw_torch_fused",
            torch_compile=compiled, report_to=[], save_strategy="no", logging_strategy="no", use_cpu=True,
            learning_rate=1e-3, disable_tqdm=True, dataloader_num_workers=0,
        )  # fmt: skip
        begun = time.perf_counter()
        Trainer(model=model, args=settings, train_dataset=Windows(), callbacks=[Clock()]).train()
    half = len(times) // 2 - 1
    return {
        "tokens_per_second": (len(times) - 1 - half) * rows * CONTEXT / (times[-1] - times[half]),
        "first_step": times[0] - begun,
        "megabytes": peak_megabytes(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main() -> int:
    """Rounds of all four in turn, so that a slower spell of the machine meets each of them."""
    asked = arguments(
        __doc__ or "",
        layers=(int, 8, "layers"),
        width=(int, 512, "width"),
        heads=(int, 8, "query heads"),
        kv_heads=(int, 8, "key/value heads"),
        rows=(int, 32, "windows of 512 tokens a step"),
        steps=(int, 4, "steps of each run"),
    )
    if asked.child:
        run_child(asked.child, {"rate": best_rate, "ours": ours, "trainer": trainer})
        return 0
    rounds = 1 if asked.quick else asked.rounds
    shape = {name: getattr(asked, name) for name in ("layers", "width", "heads", "kv_heads", "rows", "steps")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", "again", "whole", "eager", "compiled")}
    rates = []
    few = min(asked.rows, TOGETHER)
    with tempfile.TemporaryDirectory() as cache:
        for number in range(rounds):
            rates.append(in_child(__file__, "rate", seconds=5.0)["gflops"])
            if number == 0:
                found["ours"].append(in_child(__file__, "ours", **shape, compiled=True, cache=cache))
            found["again"].append(in_child(__file__, "ours", **shape, compiled=True, cache=cache))
            found["whole"].append(in_child(__file__, "trainer", **shape, compiled=False, together=asked.rows))
            found["eager"].append(in_child(__file__, "trainer", **shape, compiled=False, together=few))
            found["compiled"].append(in_child(__file__, "trainer", **shape, compiled=True, together=few))
            for name, each in found.items():
                print(name, {key: round(value, 1) for key, value in each[-1].items()}, flush=True)
    same = {int(each[0]["parameters"]) for each in found.values()}
    if len(same) != 1:
        raise RuntimeError(f"The shapes differ: {same} parameters.")

    def ratio(key: str, name: str) -> float:
        pairs = zip(found["again"], found[name], strict=True)
        return median([one[key] / other[key] for one, other in pairs])

    used = [
        each["tokens_per_second"] * each["flops_per_token"] / rate / 1e9
        for each, rate in zip(found["again"], rates, strict=True)
    ]
    figures = [
        Figure("share of the bf16 matmul rate", median(used), "", 0.60),
        Figure("tokens/s, of Trainer's", ratio("tokens_per_second", "whole"), "x", 2.0),
        Figure("tokens/s, of accumulating Trainer's", ratio("tokens_per_second", "eager"), "x"),
        Figure("tokens/s, of compiled Trainer's", ratio("tokens_per_second", "compiled"), "x", 1.1),
        Figure("peak memory, of accumulating Trainer's", ratio("megabytes", "eager"), "x", 0.7, at_most=True),
        Figure("bf16 matmul rate", median(rates), "GFLOP/s"),
        Figure("first step, first start", found["ours"][0]["first_step"], "s"),
        Figure("first step, second start", median([each["first_step"] for each in found["again"]]), "s"),
        Figure("parameters", found["ours"][0]["parameters"] / 1e6, "M"),
    ]
    return report("pretrain_throughput", figures, {**shape, **versions("torch", "transformers")}, rounds)


if __name__ == "__main__":
    raise SystemExit(main())
