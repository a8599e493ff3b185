"""Loading a checkpoint takes little more memory than its weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ownlm.model.families import families
from ownlm.model.families.llama import family
from ownlm.model.folder import INDEX

MOST = 1.2
"""The peak above an idle process, as a multiple of the weights' size."""
CONFIG = {
    "model_type": "llama", "vocab_size": 32_000, "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 7, "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 2048,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
SHARD = 300_000_000

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="no peak of the resident memory can be asked for there"),
]

PEAK = """
import sys, torch
from pathlib import Path
import ownlm.model.files
{load}
def peak():
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would count what the parent had when it forked
        return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if "VmHWM" in line)
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak())
"""
LOAD = """
decoder = ownlm.model.files.load_model(Path(sys.argv[1]), dtype={dtype})
assert sum(each.nbytes for each in decoder.parameters()) == {bytes}
assert all(float(each.float().abs().max()) > 0 for each in decoder.parameters() if each.ndim < 2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sharded checkpoint of a little more than a gigabyte in bf16, written piece by piece."""
    path = tmp_path_factory.mktemp("gigabyte")
    config = families()["llama"].read_config(CONFIG)
    (path / "config.json").write_text(json.dumps(CONFIG))
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    shapes = _shapes(config.width, config.ffn, config.vocabulary)
    names = [stored.name for stored in family.tensors(config)]
    for index, name in enumerate(names):
        rows, columns = shapes[name.split(".")[-2]]
        block = torch.randn(columns if rows is None else 1 << 16, dtype=torch.bfloat16)
        count = columns if rows is None else rows * columns
        shard[name] = block.repeat(-(-count // len(block)))[:count].view(*([] if rows is None else [rows]), columns)
        if sum(each.nbytes for each in shard.values()) > SHARD or index == len(names) - 1:
            file = f"model-{len(set(weight_map.values())) + 1:05}.safetensors"
            save_file(shard, path / file)
            weight_map.update(dict.fromkeys(shard, file))
            shard = {}
    (path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert len(set(weight_map.values())) > 3
    yield path
    shutil.rmtree(path)  # pytest would keep it for three more runs


def _shapes(width: int, ffn: int, vocabulary: int) -> dict[str, tuple[int | None, int]]:
    """Rows (None: a vector) and columns, by the module's name in the checkpoint."""
    square = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (width, width))
    norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm"), (None, width))
    wide = {"gate_proj": (ffn, width), "up_proj": (ffn, width), "down_proj": (width, ffn)}
    return {**square, **norms, **wide, "embed_tokens": (vocabulary, width)}


def peak(folder: Path, load: str = "") -> int:
    """The largest resident memory in bytes of a process that does this after its imports."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK.replace("{load}", load), folder], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(("dtype", "factor"), [("None", 1), ("torch.float32", 2)])
def test_loading_a_gigabyte_takes_a_fifth_more_at_most(folder: Path, dtype: str, factor: int) -> None:
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert stored > 1_000_000_000
    parameters = families()["llama"].read_config(CONFIG).parameters
    weights = 2 * parameters * factor
    idle = peak(folder)
    loading = peak(folder, LOAD.replace("{dtype}", dtype).replace("{bytes}", str(weights)))
    taken = loading - idle
    print(f"weights {weights / 1e6:.0f} MB, idle {idle / 1e6:.0f} MB, peak above it {taken / weights:.2f} times")
    # The weights must be there, so that the test would notice a process that measures nothing.
    assert 0.95 * weights <= taken <= MOST * weights
