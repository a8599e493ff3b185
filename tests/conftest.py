"""Fixtures that all tests share. No test needs a network, a GPU or data from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ownlm.runtime.browser import find_browser
from ownlm.store.workspace import Workspace


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a workspace and a current folder of its own, so that none writes into the checkout."""
    monkeypatch.setenv("OWNLM_HOME", str(tmp_path / "workspace"))
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace; commands called in the same test see it too."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """`$OWNLM_TEST_DATA`: public texts and references that are not part of the repository."""
    folder = os.environ.get("OWNLM_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("OWNLM_TEST_DATA is not set to the folder of test data")
    return Path(folder)


@pytest.fixture(scope="session")
def browser_path() -> Iterator[str]:
    """The program of a Chrome, Chromium or Edge for playwright's `executable_path`."""
    found = find_browser()
    if found is None:
        pytest.skip("no Chrome, Chromium or Edge is installed here")
    yield str(found)
