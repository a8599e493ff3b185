"""Nothing leaves the machine: all goes well in a namespace without a network, and elsewhere none is looked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from long.running import SMALL_RUN, environment, run, server
from small_run import CALLED_OUT, recipe_file, write_documents

pytestmark = pytest.mark.long
WATCHED = (sys.executable, SMALL_RUN, "--refuse-network", "--")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return recipe_file(tmp_path / "small.yaml", write_documents(tmp_path / "documents"))


def test_the_watch_sees_a_call(tmp_path: Path) -> None:
    """That the test below can fail."""
    done = run([*WATCHED, "complete", "openai:http://192.0.2.1:9/v1#model", "Hi", "--min-p", "0"], tmp_path)
    assert done.returncode == CALLED_OUT
    assert "192.0.2.1" in done.stderr


def test_no_part_of_a_run_or_of_a_server_calls_another_machine(recipe: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = run([*WATCHED, "run", str(recipe)], home)
    assert done.returncode == 0, done.stderr
    with server([*WATCHED, "serve", "small"], home) as url:
        assert httpx.get(url, timeout=30, follow_redirects=True).status_code == 200
        asked = {"model": "small", "messages": [{"role": "user", "content": "What is an apple?"}], "max_tokens": 8}
        assert httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=30).status_code == 200


def test_all_goes_well_without_a_network(recipe: Path, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a network namespace (unshare -rn)")
    script = str(Path(__file__).parent / "in_namespace.py")
    command = [unshare, "-rn", sys.executable, script, str(recipe), str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path / "home"), timeout=300)
    assert done.returncode == 0, done.stderr
    assert "answered: " in done.stdout.splitlines()[-1]
