"""Commands as other processes: started, waited for, asked, stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import small_run

SMALL_RUN = str(Path(small_run.__file__))
OWNLM = (sys.executable, "-m", "ownlm")


def environment(home: Path) -> dict[str, str]:
    """With a workspace of its own, and without what would change the numbers or the output."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OWNLM_", "HF_", "TORCHINDUCTOR"))}
    return {**clean, "OWNLM_HOME": str(home), "COLUMNS": "120"}


def run(command: Sequence[str], home: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Waits for a command and returns what it wrote; fails when it takes longer than `timeout` seconds."""
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment(home), timeout=timeout
    )


@contextmanager
def server(command: Sequence[str], home: Path) -> Iterator[str]:
    """`... serve ... --port 0 --json` until the block ends; gives its address."""
    with subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, env=environment(home),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 143
