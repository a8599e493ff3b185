"""Sets OwnLM up and runs it, with nothing but Python's standard library.

    python dev.py demo  [-- --minutes 2]    install what running needs, then build a first model
    python dev.py test  [-- tests/store]    install what testing needs, then check and test (the fast tier)
    python dev.py test-long                 the tests that take long
    python dev.py bench                     every benchmark, quickly, and one table
    python dev.py install                   install only

`make demo` and the like call this file; where there is no make, call it yourself.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "ownlm-installed.json"
OLDEST_PYTHON = (3, 11)
TORCH = "torch>=2.6,<3"
TORCH_INDEX = "https://download.pytorch.org/whl/"

# system, machine: as `platform` names them; cuda: (major, minor) that the driver supports, or None without an NVIDIA
# GPU; capability: (major, minor) of the oldest GPU, or None where unknown.
Machine = namedtuple("Machine", "system machine cuda capability")
# One way of installing torch: what to say about it, megabytes to download (0: nothing), and pip's arguments.
Attempt = namedtuple("Attempt", "what megabytes arguments index")

# Builds with CUDA, newest first: the driver's version that each needs, and the GPUs that it still has kernels for.
# Within CUDA 12 a driver runs the builds of newer minor versions too; 12.8 is asked for where it is offered in full.
CUDA_BUILDS = (
    ("cu130", (13, 0), (7, 5), 2500),
    ("cu128", (12, 8), (7, 0), 3500),
    ("cu126", (12, 0), (5, 0), 3000),
    ("cu118", (11, 8), (3, 7), 2800),
)


# ---- which torch


def torch_attempts(machine):
    """The ways to get torch for this machine, best first. Pure; never a CUDA build where no NVIDIA GPU is."""
    local = Attempt("torch from a local wheel", 0, ["--no-index", "--no-deps", TORCH], None)
    cpu = from_index("torch, the build for processors", 200, "cpu")
    plain = Attempt("torch", 150, ["--no-deps", TORCH], None)
    builds = cuda_builds(machine)
    if machine.system in ("Linux", "Windows") and builds:
        return [from_index("torch for CUDA (%s)" % name, megabytes, name) for name, megabytes in builds]
    if machine.system == "Linux":
        return [local, cpu]
    return [local, plain]


def from_index(what, megabytes, name):
    """An attempt that asks one of PyTorch's own indexes and no other."""
    url = TORCH_INDEX + name
    return Attempt(what, megabytes, ["--no-deps", "--index-url", url, TORCH], url)


def cuda_builds(machine):
    """(name, megabytes) of the builds that the driver and the GPU support, newest first."""
    if machine.cuda is None:
        return []
    capability = machine.capability or (99, 0)
    return [(n, mb) for n, driver, gpu, mb in CUDA_BUILDS if machine.cuda >= driver and capability >= gpu]


def driver_cuda(report):
    """(major, minor) of "CUDA Version: 12.8" in nvidia-smi's report, or None."""
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", report)
    return (int(found.group(1)), int(found.group(2))) if found else None


def oldest_capability(report):
    """The smallest "8.9" of nvidia-smi's list of compute capabilities, one a line, or None."""
    found = re.findall(r"^\s*(\d+)\.(\d+)\s*$", report, re.MULTILINE)
    return min((int(major), int(minor)) for major, minor in found) if found else None


def this_machine():
    """What `torch_attempts` needs to know, asked of the system."""
    cuda = capability = None
    smi = shutil.which("nvidia-smi")
    if smi:
        cuda = driver_cuda(output_of([smi]))
        capability = oldest_capability(output_of([smi, "--query-gpu=compute_cap", "--format=csv,noheader"]))
    return Machine(platform.system(), platform.machine().lower(), cuda, capability)


def output_of(command):
    """A command's standard output; empty where it fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


# ---- installing


def venv_program(name):
    """A program of the virtual environment, on every system."""
    return str(VENV / "Scripts" / (name + ".exe") if os.name == "nt" else VENV / "bin" / name)


def wanted_key():
    """Changes whenever what is installed no longer fits: the requirements, the Python, or the folder itself."""
    digest = hashlib.sha256()
    for part in (ROOT / "pyproject.toml", ROOT / "constraints.txt"):
        digest.update(part.read_bytes())
    digest.update(repr((sys.version_info[:3], str(ROOT))).encode())
    return digest.hexdigest()


def installed():
    """What the stamp says: {"key", "extras"}; empty where there is none."""
    try:
        return json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def needed(stamp, key, extras):
    """The extras to install now, as a list; None when everything is there."""
    have = set(stamp.get("extras", [])) if stamp.get("key") == key else set()
    if stamp.get("key") == key and have >= set(extras):
        return None
    return sorted(have | set(extras))


def install(extras, again=False):
    """Makes .venv and installs torch and the project with `extras`, unless the stamp says that it is all there."""
    key = wanted_key()
    todo = sorted(extras) if again else needed(installed(), key, extras)
    if todo is None and Path(venv_program("python")).exists():
        return
    todo = todo if todo is not None else sorted(extras)
    machine = this_machine()
    say("Setting up .venv for Python %s (this is done once)." % platform.python_version())
    if machine.cuda and not cuda_builds(machine):
        say("The NVIDIA driver or GPU is too old for today's torch: the processor will be used.")
    if not environment_fits():
        run_step("virtual environment", [sys.executable, "-m", "venv", "--clear", str(VENV)], venv_failed)
    STAMP.unlink(missing_ok=True)
    install_torch(machine)
    target = "%s[%s]" % (ROOT, ",".join(todo)) if todo else str(ROOT)
    megabytes = 280 if "test" in todo else 200
    constraints = ["-c", str(ROOT / "constraints.txt")]
    arguments = [*constraints, "--no-compile", "-e", target]
    run_step("OwnLM and its libraries (about %d MB to download, unless cached)" % megabytes, pip(arguments), pip_failed)
    STAMP.write_text(json.dumps({"key": key, "extras": todo}), "utf-8")


def environment_fits():
    """Whether .venv holds a Python of the same version as this one."""
    program = venv_program("python")
    if not Path(program).exists():
        return False
    version = output_of([program, "-c", "import sys, pip; print(*sys.version_info[:3])"]).split()
    return version == [str(part) for part in sys.version_info[:3]]


def install_torch(machine):
    """Tries `torch_attempts` in order; stops with pip's own words where none works."""
    if output_of([venv_program("python"), "-c", "import importlib.metadata as m; print(m.version('torch'))"]):
        return
    output = ""
    for attempt in torch_attempts(machine):
        started = time.monotonic()
        # pip's configured extra indexes must not slip another build in.
        variables = dict(os.environ, PIP_EXTRA_INDEX_URL=attempt.index) if attempt.index else None
        if attempt.megabytes:
            say("  %s (about %d MB to download) ..." % (attempt.what, attempt.megabytes))
        code, output = quietly(pip(["--no-compile", *attempt.arguments]), variables)
        if code == 0:
            say("  %s: %.0f s" % (attempt.what, time.monotonic() - started))
            return
    fail(output, "torch could not be installed: see pip's words above. Is there a network?")


def pip(arguments):
    return [venv_program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]


def run_step(what, command, explain):
    """One phase: a line before, the time after; the command's output only where it fails."""
    started = time.monotonic()
    say("  %s ..." % what)
    code, output = quietly(command)
    if code:
        fail(output, explain)
    say("  done in %.0f s" % (time.monotonic() - started))


def quietly(command, variables=None):
    """(exit code, what it printed)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=str(ROOT), env=variables)
    return done.returncode, done.stdout.decode("utf-8", "replace")


venv_failed = "The virtual environment could not be made. On Debian and Ubuntu: apt install python3-venv"
pip_failed = "Installing failed: see pip's words above. The same command goes on where it stopped."


# ---- running


def demo(arguments):
    """Builds and shows a first model; leaves this process to it, so that signals reach it directly."""
    install([])
    return replace_with([venv_program("python"), "-m", "ownlm", "demo", "--yes", *arguments])


def test(arguments):
    """Style, types and the fast tests; all of them run, so that one round shows everything."""
    install(["test"])
    python = venv_program("python")
    checks = [
        ("ruff check", [python, "-m", "ruff", "check", "--quiet", "."]),
        ("ruff format", [python, "-m", "ruff", "format", "--check", "--quiet", "."]),
        ("mypy", [python, "-m", "mypy", "--no-error-summary"]),
        ("pytest", [python, "-m", "pytest", "-q", "-m", "not long", *arguments]),
    ]
    return run_checks(checks)


def test_long(arguments):
    """The tests marked `long`."""
    install(["test"])
    return run_checks([("pytest -m long", [venv_program("python"), "-m", "pytest", "-q", "-m", "long", *arguments])])


def run_checks(checks):
    """Runs every check, prints a summary, and returns 0 only when all passed."""
    results = []
    for name, command in checks:
        say("\n== %s" % name)
        started = time.monotonic()
        code = subprocess.call(command, cwd=str(ROOT))
        results.append((name, code, time.monotonic() - started))
    say("")
    for name, code, seconds in results:
        say("%-16s %-7s %6.1f s" % (name, "passed" if code == 0 else "FAILED", seconds))
    return 0 if all(code == 0 for _, code, _ in results) else 1


def bench(arguments):
    """Every file of benchmarks/, and one table of the figures in their last lines."""
    install(["test"])
    files = sorted((ROOT / "benchmarks").glob("[!_]*.py"))
    if not files:
        say("There are no benchmarks here yet.")
        return 0
    rows, failed = [], False
    for file in files:
        say("\n== %s" % file.stem)
        command = [venv_program("python"), str(file), *(arguments or ["--quick"])]
        done = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE)
        output = done.stdout.decode("utf-8", "replace")
        print(output, flush=True)
        try:
            report = json.loads(output.strip().splitlines()[-1])
        except (ValueError, IndexError):
            report = {"figures": []}
        failed = failed or done.returncode != 0 or not report.get("holds", False)
        rows.extend((file.stem, figure) for figure in report["figures"])
    say("")
    for name, figure in rows:
        say("%-20s %-40s %12s %-10s %-12s %s" % (
            name, figure.get("name"), figure.get("value"), figure.get("unit", ""), figure.get("target", ""),
            "holds" if figure.get("holds") else "MISSED"))  # fmt: skip
    return 1 if failed else 0


def only_install(arguments):
    """Installs everything, the tests' libraries included, whatever the stamp says."""
    install(["test"], again=True)
    say("Installed. Next: make demo (or: python dev.py demo)")
    return 0


def replace_with(command):
    """Runs a command in this process's place; on Windows, where that cannot be, waits for it."""
    if os.name != "nt":
        sys.stdout.flush()
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the child got it too, and saves


def say(text):
    print(text, flush=True)


def fail(output, sentence):
    if output.strip():
        print(output.rstrip(), file=sys.stderr)
    print("Error: " + sentence, file=sys.stderr)
    raise SystemExit(2)


# ---- which Python


def newer_python():
    """Another Python on the path that is new enough, or None."""
    for minor in range(14, OLDEST_PYTHON[1] - 1, -1):
        program = shutil.which("python3.%d" % minor)
        if program:
            return program
    return None


COMMANDS = {"demo": demo, "test": test, "test-long": test_long, "install": only_install, "bench": bench}


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(__doc__.strip())
        return 0
    if arguments[0] not in COMMANDS:
        fail("", "dev.py has no command '%s'. There is: %s." % (arguments[0], ", ".join(COMMANDS)))
    if sys.version_info[:2] < OLDEST_PYTHON:
        other = newer_python()
        if other:
            return subprocess.call([other, __file__, *arguments])
        fail("", "OwnLM needs Python 3.11 or newer, and this is %s; install one from python.org and call it: "
                 "python3.11 dev.py %s" % (platform.python_version(), arguments[0]))  # fmt: skip
    rest = arguments[1:]
    if rest[:1] == ["--"]:
        rest = rest[1:]
    return COMMANDS[arguments[0]](rest)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
