"""Two real processes, started by torchrun, against one."""

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import processes
import tiny
from ownlm.model.decoder import Decoder, initialise
from ownlm.runtime.errors import DiskFull, OwnLMError
from ownlm.runtime.signals import Interruption
from ownlm.train import sharded_checkpoint
from ownlm.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from ownlm.train.distributed import Group, gathered, launched, shard
from ownlm.train.exchange import block_of, rows_like
from ownlm.train.optimisers import Rates, build_optimisers
from ownlm.train.rendezvous import agree
from ownlm.train.sharded_checkpoint import MANIFEST, load_sharded, save_sharded
from ownlm.train.world import World

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
STOPPED = 12


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made: a run that was stopped, and the same gone on with to its end."""
    folder = tmp_path_factory.mktemp("two")
    stopped, whole = str(folder / "stopped"), str(folder / "whole")
    jobs = [processes.Job(stopped, stop=STOPPED), processes.Job(whole, after=stopped)]
    processes.finished(processes.start(jobs, folder, 2))
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in this process alone."""
    folder = tmp_path_factory.mktemp("one")
    alone(processes.Job(str(folder)))
    return folder


def alone(job: processes.Job) -> Decoder:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = processes.work(job, World(), Interruption())
    finally:
        torch.set_num_threads(threads)
    assert model is not None
    torch.save(model.state_dict(), Path(job.folder) / "model.pt")
    return model


def copied(two: Path, folder: Path) -> Path:
    """The stopped run's only checkpoint, in a folder of its own."""
    shutil.copytree(two / "stopped" / "state", folder)
    return folder / f"checkpoint-{STOPPED:08d}.dcp"


def fresh() -> tuple[Decoder, list[torch.optim.Optimizer]]:
    decoder = Decoder(processes.CONFIG)
    initialise(decoder, 5)
    return decoder, build_optimisers(decoder, Rates())


def test_two_processes_give_the_loss_curve_of_one_also_when_they_were_stopped(one: Path, two: Path) -> None:
    expected, found = processes.curve(one), processes.curve(two / "whole")
    assert len(expected) == processes.STEPS and float(expected[-1, 0]) < 0.6 * float(expected[0, 0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert processes.rows(two / "whole")[-1]["tokens"] == processes.rows(one)[-1]["tokens"] == 30 * 8 * 16
    weights = torch.load(one / "model.pt")
    for name, value in torch.load(two / "whole" / "model.pt").items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_checkpoint_of_two_processes_goes_on_in_one(one: Path, two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(two / "stopped", folder)
    (folder / "model.pt").unlink()
    alone(processes.Job(str(folder)))
    torch.testing.assert_close(processes.curve(folder), processes.curve(one), rtol=1e-4, atol=1e-4)
    assert len(processes.rows(two / "stopped")) == STOPPED


def test_every_number_comes_back(two: Path) -> None:
    path = two / "stopped" / "state" / f"checkpoint-{STOPPED:08d}.dcp"
    decoder, optimisers = fresh()
    progress = load_sharded(path, decoder, optimisers, World())
    assert progress is not None and (progress.step, progress.tokens) == (STOPPED, STOPPED * 8 * 16)
    for name, value in torch.load(two / "stopped" / "model.pt").items():
        assert torch.equal(decoder.get_parameter(name), value), name
    states = [state for optimiser in optimisers for state in optimiser.state.values()]
    assert [sorted(state) for state in states[:14]] == [["momentum"]] * 14
    assert {tuple(sorted(state)) for state in states[14:]} == {("exp_avg", "exp_avg_sq", "step")}
    assert all(float(s["step"]) == STOPPED for s in optimisers[1].state.values())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edited(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return edited


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a changed byte": lambda folder: flip(next(folder.glob("__1_*.distcp"))),
    "changed pickles": lambda folder: flip(folder / ".metadata"),
    "a missing file": lambda folder: next(folder.glob("__0_*.distcp")).unlink(),
    "one file more": lambda folder: (folder / "more.distcp").write_bytes(b"?"),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "no JSON": lambda folder: (folder / MANIFEST).write_text("{"),
    "another document": lambda folder: (folder / MANIFEST).write_text("[1]"),
    "no hash": edit(lambda manifest: manifest["files"].update({".metadata": None})),
    "a field too many": edit(lambda manifest: manifest["progress"].update(more=1)),
    "a file outside": edit(lambda manifest: manifest["files"].update({"../turns.jsonl": "0"})),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_unread(
    two: Path, tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(two, tmp_path / "state")
    decoder, optimisers = fresh()
    earlier = save_checkpoint(path.parent, decoder, optimisers, Progress(7))
    damage(path)
    monkeypatch.setattr(sharded_checkpoint, "FileSystemReader", None)  # whoever unpickled would use it
    assert load_sharded(path, decoder, optimisers, World()) is None
    assert load_checkpoint(path.parent, decoder, optimisers) == Progress(7)
    assert earlier.exists()


def test_the_files_are_listed_with_their_hashes(two: Path, tmp_path: Path) -> None:
    path = copied(two, tmp_path / "state")
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["processes"] == 2 and manifest["progress"]["step"] == STOPPED
    assert set(manifest["files"]) == {file.name for file in path.iterdir()} - {MANIFEST}
    assert {name[:4] for name in manifest["files"]} == {".met", "__0_", "__1_"}
    for name, value in manifest["files"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == value


@pytest.mark.parametrize("make_room", [True, False])
def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, make_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, optimisers = fresh()
    save_sharded(tmp_path, decoder, optimisers, Progress(1), World())
    if make_room:
        save_sharded(tmp_path, decoder, optimisers, Progress(2), World())
    write = sharded_checkpoint.save

    def full(tensors: Any, **options: Any) -> Any:
        write(tensors, **options)
        if (tmp_path / "checkpoint-00000001.dcp").exists():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharded_checkpoint, "save", full)
    if make_room:  # the older of two goes
        assert save_sharded(tmp_path, decoder, optimisers, Progress(3), World()).exists()
        kept = ["checkpoint-00000002.dcp", "checkpoint-00000003.dcp"]
    else:
        with pytest.raises(DiskFull, match="is full"):
            save_sharded(tmp_path, decoder, optimisers, Progress(3), World())
        kept = ["checkpoint-00000001.dcp"]
    assert sorted(file.name for file in tmp_path.iterdir()) == kept
    assert load_checkpoint(tmp_path, *fresh()) == Progress(3 if make_room else 1)


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00000001.dcp.tmp").mkdir()
    (tmp_path / ".checkpoint-00000001.dcp.tmp" / "__0_0.distcp").write_bytes(b"half")
    decoder, optimisers = fresh()
    assert load_checkpoint(tmp_path, decoder, optimisers) is None
    save_sharded(tmp_path, decoder, optimisers, Progress(2), World())
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint-00000002.dcp"]


def mesh(*shape: int) -> Any:
    """Enough of a device mesh for arithmetic."""
    ranks = torch.arange(torch.Size(shape).numel()).view(shape)
    return SimpleNamespace(mesh=ranks, ndim=len(shape), size=lambda index: shape[index])


@pytest.mark.parametrize("shape", [(12, 8), (5, 7), (1, 3)])
@pytest.mark.parametrize("tensor_dimension", [0, 1, None])
def test_the_blocks_of_a_matrix_are_all_of_it_once(shape: tuple[int, int], tensor_dimension: int | None) -> None:
    from torch.distributed.tensor import Replicate, Shard

    second = Replicate() if tensor_dimension is None else Shard(tensor_dimension)
    seen = torch.zeros(*shape)
    for rank in range(6):
        seen[block_of(shape, mesh(3, 2), (Shard(0), second), rank)] += 1
    assert torch.equal(seen, torch.full(shape, 2.0 if tensor_dimension is None else 1.0))


def test_tensor_parallelism_divides_before_fully_shard() -> None:
    from torch.distributed.tensor import Shard

    found = [block_of((8, 4), mesh(2, 2), (Shard(0), Shard(0)), rank)[0] for rank in range(4)]
    assert found == [slice(0, 2), slice(4, 6), slice(2, 4), slice(6, 8)]


def test_one_process_divides_nothing() -> None:
    decoder = tiny.decoder()
    world = launched()
    assert world == World() and world.share == (0, 1)
    assert shard(decoder, world) is decoder and gathered(decoder, world) is decoder
    assert type(decoder.head) is torch.nn.Parameter
    assert torch.equal(rows_like(decoder.head, 1, torch.float32), torch.zeros(len(decoder.head), 1))
    assert world.sum([1.5, True]) == [1.5, 1.0] and world.collect("a") == ["a"]


def test_ranks_that_divide_matrices_share_their_batches() -> None:
    shares = [World(rank, 8, tensor_parallel=2).share for rank in range(8)]
    assert shares == [(0, 4), (0, 4), (1, 4), (1, 4), (2, 4), (2, 4), (3, 4), (3, 4)]


@pytest.mark.parametrize(
    ("size", "parts", "device", "sentence"),
    [
        ("1", 2, "cpu", "--tensor-parallel 2 divides each matrix among 2 processes, but there is 1"),
        ("3", 2, "cpu", "but there are 3. Start a multiple of it"),
        ("2", 0, "cpu", "--tensor-parallel 0"),
        ("2", 1, "mps", "cpu or cuda, not on mps"),
    ],
)
def test_a_world_that_cannot_be(
    size: str, parts: int, device: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(OwnLMError, match=sentence):
        launched(parts, device)


def test_too_few_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(OwnLMError, match="number 2 of its machine, which has 1 GPU"):
        launched(device="cuda")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 3, "kv_heads": 3}, "heads=3 cannot be divided by 2"),
        ({"heads": 2, "kv_heads": 1}, "kv_heads=1 cannot be divided by 2"),
        ({"ffn": 47}, "ffn=47"),
        ({"qk_norm": "full"}, "normalises queries over all heads together"),
    ],
)
def test_a_model_that_cannot_be_divided(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OwnLMError, match=sentence):
        shard(Decoder(processes.CONFIG.with_(**changes)), Group(0, 2, 2))


def test_those_who_live_agree_whatever_the_dead_left() -> None:
    store = torch.distributed.HashStore()
    names: set[str] = set()
    for _ in range(3):  # attempts, one after the other, in the same store
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda rank: agree(store, rank, 3), range(3)))
        assert len(set(found)) == 1
        names |= set(found)
        # Two that left their names and died before they heard anything.
        store.set("here/1", "dead")
        store.set("here/2", "dead too")
    assert len(names) == 3
