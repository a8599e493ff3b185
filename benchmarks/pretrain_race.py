"""How long does it take to a validation loss of 1.874 nats on tiny Shakespeare, against nanoGPT's CPU recipe?

    python benchmarks/pretrain_race.py [--quick] [--text FILE]

Characters, split 90/10. The peer is nanoGPT's recipe for CPUs (4 layers of 128, context 64, batch 12, AdamW from 1e-3
to 1e-4 in 2,000 steps, fp32) with the faster of two GPT-2s: OwnLM's own and transformers'. OwnLM trains its default
decoder of the same depth and width with its default optimisers, in its own loop; rates, batch, untied embeddings and
the length of the schedule were chosen for this race, as nanoGPT's recipe was for this text. Time is that of the
training steps; evaluation is left out for both.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _harness import Figure, arguments, in_child, median, report, run_child, versions

TARGET = 1.874
PEER_STEPS = 2000


def characters(path: str) -> tuple[Any, Any, int]:
    """Ids of the training and of the validation part, and how many characters there are."""
    import numpy as np

    text = Path(path).read_text("utf-8")
    alphabet = {character: index for index, character in enumerate(sorted(set(text)))}
    ids = np.array([alphabet[character] for character in text], dtype=np.int64)
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(alphabet)


def validation_loss(logits: Any, ids: Any, context: int = 64) -> float:
    """Mean nats of every character of the validation part, each in a window of `context`."""
    import torch
    from torch.nn import functional

    windows = (len(ids) - 1) // context
    inputs = torch.from_numpy(ids[: windows * context]).view(windows, context)
    targets = torch.from_numpy(ids[1 : windows * context + 1]).view(windows, context)
    with torch.inference_mode():
        total = sum(
            float(functional.cross_entropy(logits(x).flatten(0, 1), y.flatten(), reduction="sum"))
            for x, y in zip(inputs.split(256), targets.split(256), strict=True)
        )
    return total / (windows * context)


def ours(text: str, seed: int) -> dict[str, float]:
    """OwnLM's own loop to the end of a short schedule; the time of the first evaluation below the target."""
    import torch

    from ownlm.model.config import DecoderConfig
    from ownlm.model.decoder import Decoder, initialise
    from ownlm.model.kernels import Kernels, use
    from ownlm.model.rope import Rope
    from ownlm.recipe.measure import measure_machine
    from ownlm.runtime.signals import Interruption
    from ownlm.train.loop import TrainSettings, train
    from ownlm.train.optimisers import Rates
    from ownlm.train.pretrain import PretrainObjective
    from ownlm.train.schedule import Schedule

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)
    learn, check, size = characters(text)
    config = DecoderConfig(size, 4, 128, 2, 1, 64, 384, 64, rope=Rope(10_000.0), tied_embeddings=False)
    decoder = use(Decoder(config), Kernels(measure_machine().precision, "tiled"))
    initialise(decoder, seed)
    steps, seconds = 115, [0.0]
    reached: dict[str, float] = {}

    def look(step: int, trained: Decoder) -> None:
        if step >= 90 and step % 5 == 0 and "seconds" not in reached:
            trained.eval()
            loss = validation_loss(trained, check)
            if loss <= TARGET:
                reached.update(seconds=seconds[0], loss=loss, step=step)

    objective = PretrainObjective(learn, "tiny Shakespeare", 64, 32, seed=seed)
    settings = TrainSettings(
        Schedule(steps, warmup=0.02, decay=0.98), Rates(0.03, 0.02, 0.02, momentum=0.9), checkpoint_seconds=1e9
    )
    with tempfile.TemporaryDirectory() as folder:
        train(
            decoder, objective, settings, Path(folder), Path(folder), Interruption(), look,
            lambda row: seconds.__setitem__(0, row["elapsed"]),
        )  # fmt: skip
    return reached or {"seconds": math.inf, "loss": validation_loss(decoder.eval(), check), "step": steps}


def gpt2(kind: str, size: int, seed: int) -> tuple[Any, Any]:
    """nanoGPT's model for CPUs: as a module, and what gives its logits."""
    import torch

    torch.manual_seed(seed)
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = GPT2Config(
        vocab_size=size, n_positions=64, n_embd=128, n_layer=4, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, use_cache=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(shape)
    if kind == "transformers":
        return model, lambda ids: model(ids).logits
    from ownlm.model.files import load_model

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        decoder = load_model(Path(folder))
    return decoder, decoder


def peer(kind: str, text: str, seed: int, steps: int, target: bool) -> dict[str, float]:
    """nanoGPT's recipe for `steps` steps, or until the target; seconds in training steps."""
    import numpy as np
    import torch
    from torch.nn import functional

    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)
    learn, check, size = characters(text)
    model, logits = gpt2(kind, size, seed)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    plain = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    random, seconds = np.random.default_rng(seed), 0.0
    for step in range(steps):
        started = time.perf_counter()
        progress = min(1.0, max(0.0, (step - 100) / (PEER_STEPS - 100)))  # the lowest rate from the last step on
        rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.45e-3 * (1 + math.cos(math.pi * progress))
        for group in optimiser.param_groups:
            group["lr"] = rate
        starts = random.integers(0, len(learn) - 65, 12)
        windows = torch.from_numpy(np.stack([learn[start : start + 65] for start in starts]))
        loss = functional.cross_entropy(logits(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds += time.perf_counter() - started
        if target and step >= 1000 and (step + 1) % 50 == 0:
            found = validation_loss(logits, check)
            if found <= TARGET:
                return {"seconds": seconds, "loss": found, "step": step + 1}
    return {"seconds": seconds, "loss": validation_loss(logits, check) if target else math.nan, "step": steps}


def main() -> int:
    """The race."""
    data = os.environ.get("OWNLM_TEST_DATA", str(Path(__file__).resolve().parent.parent.parent / "shared" / "data"))
    default = str(Path(data) / "text" / "tinyshakespeare.txt")
    asked = arguments(__doc__ or "", text=(str, default, "tiny Shakespeare as one file"))
    if asked.child:
        run_child(asked.child, {"ours": ours, "peer": peer})
        return 0
    if not Path(asked.text).is_file():
        print(f"{asked.text} is not there: give tiny Shakespeare's text with --text.", file=sys.stderr)
        return 2
    rounds = 1 if asked.quick else asked.rounds
    speeds = {
        kind: in_child(__file__, "peer", kind=kind, text=asked.text, seed=0, steps=100, target=False)["seconds"]
        for kind in ("ownlm", "transformers")
    }
    best = min(speeds, key=speeds.__getitem__)
    print(f"100 steps of the peer: {speeds}; the race is against {best}'s GPT-2")
    ratios, mine, theirs = [], [], []
    for seed in range(rounds):
        theirs.append(
            in_child(__file__, "peer", kind=best, text=asked.text, seed=seed, steps=3 * PEER_STEPS, target=True)
        )
        mine.append(in_child(__file__, "ours", text=asked.text, seed=seed))
        ratios.append(theirs[-1]["seconds"] / mine[-1]["seconds"])
        print(f"seed {seed}: peer {theirs[-1]}, ours {mine[-1]}: {ratios[-1]:.1f} x")
    figures = [
        Figure("faster than nanoGPT's recipe", median(ratios), "x", 6.0),
        Figure("time to the loss", median([each["seconds"] for each in mine]), "s"),
        Figure("the peer's time", median([each["seconds"] for each in theirs]), "s"),
    ]
    return report("pretrain_race", figures, {"gpt2": best, **versions("torch", "transformers")}, rounds)


if __name__ == "__main__":
    raise SystemExit(main())
