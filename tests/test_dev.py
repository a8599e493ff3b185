"""dev.py: which torch for which machine, and when to install at all."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parent.parent / "dev.py"


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dev", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def indexes(dev: ModuleType, system: str, machine: str, cuda: Any = None, capability: Any = None) -> list[str]:
    """What is tried, in order: "local", "plain" (the default index), or the name of one of PyTorch's indexes."""
    found = []
    for attempt in dev.torch_attempts(dev.Machine(system, machine, cuda, capability)):
        if "--no-index" in attempt.arguments:
            found.append("local")
        elif attempt.index:
            assert attempt.arguments[attempt.arguments.index("--index-url") + 1] == attempt.index
            found.append(attempt.index.rsplit("/", 1)[1])
        else:
            found.append("plain")
        assert "--no-deps" in attempt.arguments, "dependencies come with everything else, within the constraints"
        assert dev.TORCH in attempt.arguments
    return found


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_linux_without_a_gpu_gets_the_cpu_build_only(dev: ModuleType, machine: str) -> None:
    assert indexes(dev, "Linux", machine) == ["local", "cpu"]


def test_macos_and_windows_take_the_default_index(dev: ModuleType) -> None:
    assert indexes(dev, "Darwin", "arm64") == ["local", "plain"]
    assert indexes(dev, "Windows", "amd64") == ["local", "plain"]


@pytest.mark.parametrize(
    ("cuda", "capability", "expected"),
    [
        ((13, 1), (9, 0), ["cu130", "cu128", "cu126", "cu118"]),
        ((13, 0), None, ["cu130", "cu128", "cu126", "cu118"]),
        ((12, 8), (8, 9), ["cu128", "cu126", "cu118"]),
        ((12, 4), (8, 0), ["cu126", "cu118"]),
        ((11, 8), (8, 0), ["cu118"]),
        ((13, 0), (7, 0), ["cu128", "cu126", "cu118"]),
        ((13, 0), (6, 1), ["cu126", "cu118"]),
    ],
)
@pytest.mark.parametrize("system", ["Linux", "Windows"])
def test_a_gpu_gets_the_newest_build_that_driver_and_gpu_support(
    dev: ModuleType, system: str, cuda: Any, capability: Any, expected: list[str]
) -> None:
    assert indexes(dev, system, "x86_64", cuda, capability) == expected


def test_a_driver_too_old_gets_the_cpu_build(dev: ModuleType) -> None:
    assert indexes(dev, "Linux", "x86_64", (11, 2)) == ["local", "cpu"]
    assert indexes(dev, "Linux", "x86_64", (13, 0), (3, 0)) == ["local", "cpu"]


def test_what_nvidia_smi_says(dev: ModuleType) -> None:
    report = "| NVIDIA-SMI 570.86.10    Driver Version: 570.86.10    CUDA Version: 12.8     |"
    assert dev.driver_cuda(report) == (12, 8)
    assert dev.driver_cuda("NVIDIA-SMI has failed because it couldn't communicate with the driver") is None
    assert dev.driver_cuda("") is None
    assert dev.oldest_capability("9.0\n8.6\n10.0\n") == (8, 6)
    assert dev.oldest_capability("[N/A]\n") is None


def test_sizes_are_told_before_they_are_taken(dev: ModuleType) -> None:
    for cuda in (None, (12, 8)):
        for attempt in dev.torch_attempts(dev.Machine("Linux", "x86_64", cuda, None)):
            assert attempt.megabytes > 0 or "--no-index" in attempt.arguments


def test_installs_only_what_is_not_there(dev: ModuleType) -> None:
    assert dev.needed({}, "k", []) == []
    assert dev.needed({}, "k", ["test"]) == ["test"]
    assert dev.needed({"key": "k", "extras": []}, "k", []) is None
    assert dev.needed({"key": "k", "extras": ["test"]}, "k", []) is None
    assert dev.needed({"key": "k", "extras": []}, "k", ["test"]) == ["test"]
    assert dev.needed({"key": "old", "extras": ["test"]}, "k", []) == []


def test_nothing_is_done_when_the_stamp_fits(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stamp = tmp_path / "stamp.json"
    stamp.write_text(json.dumps({"key": dev.wanted_key(), "extras": ["test"]}), "utf-8")
    monkeypatch.setattr(dev, "STAMP", stamp)
    monkeypatch.setattr(dev, "venv_program", lambda name: sys.executable)
    monkeypatch.setattr(dev, "quietly", lambda *_: pytest.fail("something was run"))
    dev.install(["test"])
    assert capsys.readouterr().out == ""


def test_a_cpu_index_is_the_only_index(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extra index of pip's configuration could hold the CUDA build."""
    calls = []

    def quietly(command: list[str], variables: dict[str, str] | None = None) -> tuple[int, str]:
        calls.append((command, variables))
        return (0 if "--index-url" in command else 1), "pip says"

    monkeypatch.setattr(dev, "quietly", quietly)
    monkeypatch.setattr(dev, "output_of", lambda _: "")
    dev.install_torch(dev.Machine("Linux", "x86_64", None, None))
    assert "--no-index" in calls[0][0]
    assert calls[1][1] is not None
    assert calls[1][1]["PIP_EXTRA_INDEX_URL"] == dev.TORCH_INDEX + "cpu"
    assert len(calls) == 2


def test_a_failure_shows_pips_words(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev, "quietly", lambda *_: (1, "pip says no"))
    monkeypatch.setattr(dev, "output_of", lambda _: "")
    with pytest.raises(SystemExit) as stopped:
        dev.install_torch(dev.Machine("Linux", "x86_64", None, None))
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "pip says no" in err
    assert err.splitlines()[-1].startswith("Error: torch could not be installed")


def test_an_old_python_is_one_sentence(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev.sys, "version_info", (3, 9, 2, "final", 0))
    monkeypatch.setattr(dev, "newer_python", lambda: None)
    with pytest.raises(SystemExit):
        dev.main(["demo"])
    err = capsys.readouterr().err
    assert err.startswith("Error: OwnLM needs Python 3.11 or newer")
    assert err.count("\n") == 1


def test_an_old_python_can_read_the_file() -> None:
    ast.parse(FILE.read_text("utf-8"), feature_version=(3, 7))


def test_help_and_unknown_commands() -> None:
    done = subprocess.run([sys.executable, str(FILE), "--help"], capture_output=True, text=True, check=True)
    assert "python dev.py demo" in done.stdout
    done = subprocess.run([sys.executable, str(FILE), "dmeo"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "There is: demo, test, test-long, install, bench." in done.stderr


def test_only_the_standard_library_is_imported() -> None:
    tree = ast.parse(FILE.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.module in sys.stdlib_module_names


def test_checks_all_run_and_one_failure_fails(dev: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    fine, bad = [sys.executable, "-c", ""], [sys.executable, "-c", "raise SystemExit(3)"]
    assert dev.run_checks([("bad", bad), ("fine", fine)]) == 1
    out = capsys.readouterr().out
    assert "bad              FAILED" in out
    assert "fine             passed" in out
    assert dev.run_checks([("fine", fine)]) == 0
