"""The metrics of a run in TensorBoard, Weights & Biases or MLflow; the JSON lines are written without them too.

Nothing leaves this machine unless the user has logged in to W&B, or names a server in `MLFLOW_TRACKING_URI`.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import netrc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ownlm.runtime.errors import OwnLMError

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
"""Tracker -> the package that it needs."""
PROJECT = "ownlm"
_QUIET = ("step", "steps", "remaining")
"""What a row says of itself and not of the training."""
_MLFLOW_SECONDS = 3.0
_MLFLOW_PARAMETERS = 100
"""As many as one call takes."""

Warn = Callable[[str], None]


class Tracker(Protocol):
    """Gets every row of metrics, and is closed when the run ends or is cut off."""

    def __call__(self, row: dict[str, Any]) -> None:
        """Keeps the row's numbers; a row that a resumed run makes again is kept once."""
        ...

    def close(self) -> None:
        """Writes what is still held."""
        ...


_Maker = Callable[[Path, str, dict[str, Any]], Tracker]


def require_trackers(names: Sequence[str]) -> None:
    """For a command, before it spends minutes on what comes before the training.

    Raises:
        OwnLMError: a name that is none, or whose package is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            raise OwnLMError(f"There is no tracker {name[:50]!r}. Choose from {', '.join(PACKAGES)}.")
    missing = [PACKAGES[name] for name in names if importlib.util.find_spec(PACKAGES[name]) is None]
    if missing:
        raise OwnLMError(
            f"Tracking with {', '.join(names)} needs what is not installed. Install it: pip install {' '.join(missing)}"
        )


def open_trackers(
    names: Sequence[str], folder: Path, run: str, settings: Mapping[str, Any], warn: Warn | None = None
) -> list[Tracker]:
    """Trackers that write below `folder` and show `run` with its `settings`; a resumed run goes on under its name.

    One that fails while the run goes on is left out from then on, and `warn` gets a sentence: a run is worth more than
    its picture.

    Raises:
        OwnLMError: a name that is none, a package that is not installed, or a tracker that cannot be opened.
    """
    require_trackers(names)
    makers: dict[str, _Maker] = {"tensorboard": _TensorBoard, "wandb": _Wandb, "mlflow": _Mlflow}
    opened: list[Tracker] = []
    for name in dict.fromkeys(names):
        try:
            opened.append(_Guarded(name, makers[name](folder, run, flat(settings)), warn))
        except Exception as error:
            for tracker in opened:
                tracker.close()
            raise OwnLMError(f"The tracker {name} could not be opened: {_first_line(error)}") from error
    return opened


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a row; `skipped` is 1 where the step was left out."""
    found = {key: 1.0 if key == "skipped" else value for key, value in row.items() if key not in _QUIET}
    return {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings under dotted names; what is no number is text."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}.")
        elif value is not None:
            found[f"{before}{key}"] = value if isinstance(value, int | float | bool) else str(value)
    return found


class _Guarded:
    """A tracker whose failures do not reach the run."""

    def __init__(self, name: str, tracker: Tracker, warn: Warn | None) -> None:
        self._name, self._warn = name, warn
        self._tracker: Tracker | None = tracker

    def __call__(self, row: dict[str, Any]) -> None:
        if self._tracker is not None:
            self._safely(lambda tracker: tracker(row))

    def close(self) -> None:
        if self._tracker is not None:
            self._safely(lambda tracker: tracker.close())
            self._tracker = None

    def _safely(self, action: Callable[[Tracker], None]) -> None:
        assert self._tracker is not None
        try:
            action(self._tracker)
        except Exception as error:
            self._tracker = None
            if self._warn is not None:
                self._warn(
                    f"The tracker {self._name} failed and is left out from here on ({_first_line(error)}). "
                    "Training goes on, and metrics.jsonl has every step."
                )


class _TensorBoard:
    """Event files in `folder/tensorboard/RUN`, for `tensorboard --logdir folder/tensorboard`."""

    def __init__(self, folder: Path, run: str, settings: dict[str, Any]) -> None:
        self._module = importlib.import_module("tensorboardX")
        self._folder, self._settings = folder / "tensorboard" / run, settings
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = None

    def __call__(self, row: dict[str, Any]) -> None:
        step = int(row["step"])
        if self._writer is None:
            # Only now is it known where a resumed run goes on; what lies behind that is not shown twice. Files are
            # named by the second: the ending keeps a run that is restarted at once from overwriting its own.
            self._writer = self._module.SummaryWriter(
                str(self._folder), purge_step=step, flush_secs=5, filename_suffix=f".{step:08d}"
            )
            rows = "".join(f"| {key} | {value} |\n" for key, value in self._settings.items())
            self._writer.add_text("settings", f"| name | value |\n|---|---|\n{rows}", step)
        for key, value in numbers(row).items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Wandb:
    """A W&B run: in `folder/wandb` for `wandb sync`, or sent at once where the user has logged in."""

    def __init__(self, folder: Path, run: str, settings: dict[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = importlib.import_module("wandb")
        mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run,
            name=run,
            dir=str(folder),
            config=settings,
            mode=mode,
            resume="allow" if mode == "online" else None,
            # The terminal is ours, and nobody asked for their code or their commits to be kept there.
            settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
        )
        self._next = int(self._run.step)

    def __call__(self, row: dict[str, Any]) -> None:
        if row["step"] >= self._next:
            self._run.log(numbers(row), step=int(row["step"]))

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """An MLflow run in `folder/mlflow.db`, or on the server that `MLFLOW_TRACKING_URI` names."""

    def __init__(self, folder: Path, run: str, settings: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        client = importlib.import_module("mlflow.tracking").MlflowClient
        for name in ("mlflow", "alembic"):  # a new database is made with many lines on stderr
            logging.getLogger(name).setLevel(logging.WARNING)
        self._entities = importlib.import_module("mlflow.entities")
        folder.mkdir(parents=True, exist_ok=True)
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute().as_posix()}"
        self._client: Any = client(tracking_uri=address)
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        found = self._client.search_runs([number], filter_string=f"tags.`ownlm.run` = '{run}'", max_results=1)
        if found:
            self._id, self._last = found[0].info.run_id, int(found[0].data.metrics.get("last_step", 0))
            self._client.update_run(self._id, status="RUNNING")
        else:
            made = self._client.create_run(number, run_name=run, tags={"ownlm.run": run})
            self._id, self._last = made.info.run_id, 0
            items = [self._entities.Param(key, str(value)[:6000]) for key, value in settings.items()]
            for at in range(0, len(items), _MLFLOW_PARAMETERS):
                self._client.log_batch(self._id, params=items[at : at + _MLFLOW_PARAMETERS])
        self._waiting: list[Any] = []
        self._written = time.monotonic()

    def __call__(self, row: dict[str, Any]) -> None:
        step = int(row["step"])
        if step <= self._last:
            return
        self._last = step
        now = int(time.time() * 1000)
        values = numbers(row) | {"last_step": float(step)}
        self._waiting += [self._entities.Metric(key, value, now, step) for key, value in values.items()]
        # Every write is a transaction; a thousand numbers are the most that one may have.
        if time.monotonic() - self._written > _MLFLOW_SECONDS or len(self._waiting) > 900:
            self._write()

    def close(self) -> None:
        self._write()
        self._client.set_terminated(self._id)

    def _write(self) -> None:
        if self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting)
        self._waiting, self._written = [], time.monotonic()


def _logged_in() -> bool:
    """Whether W&B finds a key for its server, in `WANDB_API_KEY` or as `wandb login` leaves it; asks nobody."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    candidates = [os.environ.get("NETRC", ""), "~/.netrc", "~/_netrc"]
    for path in (Path(each).expanduser() for each in candidates if each):
        try:
            if path.is_file():
                return netrc.netrc(str(path)).authenticators(host) is not None
        except (netrc.NetrcParseError, OSError):
            return False
    return False


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
