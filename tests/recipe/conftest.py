"""One small chain, built once, of which tests take copies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from ownlm.store.workspace import Workspace
from small_run import Chain, run_small, small_recipe, write_documents


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """An undisturbed run. Read it, and change nothing in it."""
    place = tmp_path_factory.mktemp("small")
    recipe, workspace = small_recipe(write_documents(place / "documents")), Workspace(place / "workspace")
    threads = torch.get_num_threads()
    yield Chain(recipe, workspace, run_small(recipe, workspace))
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def copied(built: Chain, workspace: Workspace) -> Workspace:
    """The finished run's workspace, as the test's own."""
    shutil.copytree(built.workspace.root, workspace.root)
    return workspace
