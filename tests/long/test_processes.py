"""Several processes that are killed, stopped, divided in other ways, or more than before: always the same curve."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import processes
from ownlm.runtime.signals import Interruption
from ownlm.train.world import World

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="no signals there"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]
STEPS = 120
EXPERTS = {"experts": {"count": 8, "active": 2, "ffn": 16, "layers": [0, 1]}}


def alone(folder: Path, **changes: Any) -> torch.Tensor:
    """The curve of one process."""
    folder.mkdir()
    processes.work(processes.Job(str(folder), **changes), World(), Interruption())
    return processes.curve(folder)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


WAYS: dict[str, dict[str, Any]] = {
    "tensor": {"tensor_parallel": 2},
    "neurons": {"rates": {"neuron_beta": 0.95, "cautious": True, "weight_decay": 0.1}},
    "recomputed": {"kernels": {"recompute": True}},
    "biased": {"config": {"qkv_bias": True, "output_bias": True, "ffn_bias": True, "norm": "layer"}},
    "untied": {"config": {"tied_embeddings": False, "learned_positions": True, "rope": None}},
    "experts": {"config": EXPERTS},
    "tensor and experts": {"tensor_parallel": 2, "config": EXPERTS},
}


def test_every_way_to_divide_a_model_gives_the_same_curve(tmp_path: Path) -> None:
    jobs = [processes.Job(str(tmp_path / name), steps=15, **way) for name, way in WAYS.items()]
    processes.finished(processes.start(jobs, tmp_path, 2))
    for name, way in WAYS.items():
        rest = {key: value for key, value in way.items() if key != "tensor_parallel"}
        found, expected = processes.curve(tmp_path / name), alone(tmp_path / f"{name} alone", steps=15, **rest)
        if "experts" in name:  # a token between two experts goes to the other one for a difference in the last bit
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
        else:
            close(found, expected)


def test_divided_biases_and_whole_norms_have_one_optimiser(tmp_path: Path) -> None:
    config = {"qkv_bias": True, "output_bias": True, "ffn_bias": True, "norm": "layer"}
    job = processes.Job(str(tmp_path / "two"), steps=15, tensor_parallel=2, config=config)
    processes.finished(processes.start([job], tmp_path, 2))
    close(processes.curve(tmp_path / "two"), alone(tmp_path / "alone", steps=15, config=config))


def test_two_go_on_as_four_and_as_two_by_two(tmp_path: Path) -> None:
    stopped = str(tmp_path / "stopped")
    rates = {"neuron_beta": 0.95}  # its state is a column, divided otherwise than the matrix
    processes.finished(processes.start([processes.Job(stopped, stop=12, rates=rates)], tmp_path, 2))
    jobs = [
        processes.Job(str(tmp_path / "four"), after=stopped, rates=rates),
        processes.Job(str(tmp_path / "square"), after=stopped, tensor_parallel=2, stop=20, rates=rates),
    ]
    processes.finished(processes.start(jobs, tmp_path, 4))
    back = processes.Job(str(tmp_path / "back"), after=str(tmp_path / "square"), rates=rates)
    processes.finished(processes.start([back], tmp_path, 2))
    expected = alone(tmp_path / "alone", rates=rates)
    for name in ("four", "back"):
        close(processes.curve(tmp_path / name), expected)


def test_a_dead_process_is_restarted_and_the_curve_does_not_change(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = processes.Job(str(folder), kill=17, checkpoint_seconds=0.2)
    processes.finished(processes.start([job], tmp_path, 2, "--max-restarts=1"))
    assert (folder / "killed").exists()
    close(processes.curve(folder), alone(tmp_path / "alone"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The curve of two processes that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    processes.finished(processes.start([processes.Job(str(folder / "run"), steps=STEPS)], folder, 2))
    return processes.curve(folder / "run")


def test_killed_at_any_moment_they_end_bit_for_bit_alike(tmp_path: Path, undisturbed: torch.Tensor) -> None:
    folder, kills = tmp_path / "run", 3
    generator = random.Random(7)
    job = processes.Job(str(folder), steps=STEPS, checkpoint_seconds=0.1)
    process = processes.start([job], tmp_path, 2, f"--max-restarts={kills}")
    dead: set[str] = set()
    for number in range(1, kills + 1):
        pids = [wait_for_another(folder / f"pid-{rank}", dead) for rank in range(2)]
        dead |= set(pids)  # torchrun ends them all and starts as many
        wait_for_rows(folder, number * STEPS // (kills + 1), process)
        time.sleep(generator.uniform(0, 0.3))
        os.kill(int(generator.choice(pids)), signal.SIGKILL)
    processes.finished(process)
    assert torch.equal(processes.curve(folder), undisturbed)


def wait_for_another(path: Path, seen: set[str]) -> str:
    """The process id in a file, once it is a new one."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if path.exists() and (pid := path.read_text()) and pid not in seen:
            return pid
        time.sleep(0.05)
    raise AssertionError(f"{path} names no new process")


def wait_for_rows(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until so many steps are in the metrics."""
    path = folder / "metrics.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and path.read_text().count("\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{count} steps were not reached: {process.communicate()[0][-3000:]}")


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path: Path, undisturbed: torch.Tensor) -> None:
    folder = tmp_path / "run"
    job = processes.Job(str(folder), steps=STEPS)
    process = processes.start([job], tmp_path, 2)
    wait_for_rows(folder, 20, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    reached = len(processes.rows(folder))
    assert 20 <= reached < STEPS, output[-3000:]
    assert [path.name for path in (folder / "state").glob("checkpoint-*")] == [f"checkpoint-{reached:08d}.dcp"]
    assert [(folder / f"exit-{rank}").read_text() for rank in range(2)] == ["143", "143"]
    processes.finished(processes.start([job], tmp_path, 2))
    assert torch.equal(processes.curve(folder), undisturbed)
