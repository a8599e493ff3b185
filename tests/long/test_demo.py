"""`ownlm demo --minutes 2` from nothing, and everything that is promised of what it leaves.

`OWNLM_TEST_SMALL_DEMO=1` tries these tests on the small chain instead, in seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ownlm
from long.running import OWNLM, SMALL_RUN, run, server
from ownlm.data.tokenizer import Tokenizer
from ownlm.engine.open import open_model
from ownlm.engine.request import SamplingParams
from ownlm.store.workspace import Workspace
from small_run import recipe_file, write_documents

pytestmark = pytest.mark.long
SMALL = bool(os.environ.get("OWNLM_TEST_SMALL_DEMO"))
PROMPT = "def fibonacci(n):"


@dataclass(frozen=True)
class Demo:
    """A demo that has run: its command, its workspace, and what it wrote."""

    command: tuple[str, ...]
    home: Path
    name: str
    done: subprocess.CompletedProcess[str]
    seconds: float

    @property
    def folder(self) -> Path:
        """The aligned model's."""
        return Workspace(self.home).resolve(self.name).path

    @property
    def ownlm(self) -> tuple[str, ...]:
        """The command without its arguments."""
        return self.command[: self.command.index("--") + 1] if SMALL else OWNLM


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    place = tmp_path_factory.mktemp("demo")
    command: tuple[str, ...] = (*OWNLM, "demo", "--minutes", "2", "--yes", "--json")
    if SMALL:
        recipe = recipe_file(place / "small.yaml", write_documents(place / "documents"))
        command = (sys.executable, SMALL_RUN, "--", "run", str(recipe), "--json")
    started = time.monotonic()
    done = run(command, place / "home", timeout=500)
    return Demo(command, place / "home", "small" if SMALL else "first-model", done, time.monotonic() - started)


def test_it_ends_by_itself_in_time(demo: Demo) -> None:
    assert demo.done.returncode == 0, demo.done.stderr
    assert demo.seconds < 300
    told = json.loads(demo.done.stdout)
    assert (told["built"], told["reused"], told["model"]) == (10, 0, demo.name)
    assert "Nothing leaves this machine." in demo.done.stderr
    assert "Traceback" not in demo.done.stderr
    assert f"Next: ownlm chat {demo.name}" in demo.done.stderr


def test_every_artifact_is_there_and_whole(demo: Demo) -> None:
    workspace = Workspace(demo.home)
    artifacts = workspace.artifacts()
    assert sorted(artifact.kind for artifact in artifacts) == sorted(
        ["corpus", "plan", "tokenizer", "tokens", "model", "model", "model", "preferences", "evaluation", "report"]
    )
    for artifact in artifacts:
        artifact.verify()
    assert {demo.name, f"{demo.name}-base", f"{demo.name}-instructed"} <= set(workspace.aliases())
    assert workspace.builds() == []
    report = next(artifact for artifact in artifacts if artifact.kind == "report")
    assert {"index.html"} <= set(report.files)
    bits = next(artifact for artifact in artifacts if artifact.kind == "evaluation").metrics["bits_per_byte"]
    print({name: bits[name] for name in ("xz_cold", "xz_primed")}, bits["model"]["value"], bits["ngram"]["value"])


def test_a_second_run_rebuilds_nothing_at_once(demo: Demo) -> None:
    started = time.monotonic()
    again = run(demo.command, demo.home)
    seconds = time.monotonic() - started
    told = json.loads(again.stdout)
    assert (told["built"], told["reused"]) == (0, 10)
    first = json.loads(demo.done.stdout)["artifacts"]
    assert {role: each["id"] for role, each in told["artifacts"].items()} == {r: e["id"] for r, e in first.items()}
    assert seconds < 5


def test_transformers_opens_it_with_the_same_logits(demo: Demo) -> None:
    ids = torch.tensor([Tokenizer.load(demo.folder).encode(PROMPT + "\n    return " * 8)])
    theirs = AutoModelForCausalLM.from_pretrained(demo.folder, dtype=torch.float32)
    ours = open_model(demo.name, Workspace(demo.home)).decoder  # type: ignore[attr-defined]
    with torch.no_grad():
        expected, found = theirs(ids).logits, ours(ids)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    tokenizer = AutoTokenizer.from_pretrained(demo.folder)
    assert tokenizer.encode(PROMPT, add_special_tokens=False) == Tokenizer.load(demo.folder).encode(PROMPT)


def test_transformers_continues_alike(demo: Demo) -> None:
    """64 greedy tokens; where the model ends earlier, both do."""
    tokenizer = Tokenizer.load(demo.folder)
    ids = [tokenizer.end_of_text, *tokenizer.encode(PROMPT)]
    theirs = AutoModelForCausalLM.from_pretrained(demo.folder, dtype=torch.float32)
    ends = [tokenizer.end_of_text, tokenizer.end_of_turn]
    prompt = torch.tensor([ids])
    said = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=64, eos_token_id=ends,
        pad_token_id=ends[0],
    )[0, len(ids) :].tolist()  # fmt: skip
    expected = said[:-1] if said[-1] in ends else said
    ours = open_model(demo.name, Workspace(demo.home)).generate([ids], SamplingParams(max_tokens=64, temperature=0))
    assert list(ours[0].token_ids) == expected
    assert len(said) == 64 or said[-1] in ends


def test_the_commands_and_the_library_answer_alike(demo: Demo) -> None:
    arguments = ("complete", demo.name, PROMPT, "--max-tokens", "32", "--temperature", "0")
    done = run([*demo.ownlm, *arguments], demo.home)
    assert done.returncode == 0, done.stderr
    model = ownlm.load(demo.name, demo.home)
    expected = model.complete(PROMPT, max_tokens=32, temperature=0)
    assert expected
    assert done.stdout.rstrip("\n") == expected.rstrip("\n")
    assert "".join(model.stream(PROMPT, max_tokens=32, temperature=0)) == expected
    assert isinstance(model.chat("What does json.dumps do?", max_tokens=32, seed=1), str)


def test_the_openai_client_talks_to_it(demo: Demo) -> None:
    expected = ownlm.load(demo.name, demo.home).complete(PROMPT, max_tokens=24, temperature=0)
    with server([*demo.ownlm, "serve", demo.name], demo.home) as url, openai.OpenAI(
        base_url=f"{url}/v1", api_key="none", timeout=60, max_retries=0
    ) as client:  # fmt: skip
        assert [model.id for model in client.models.list()] == [demo.name]
        whole = client.completions.create(model=demo.name, prompt=PROMPT, max_tokens=24, temperature=0)
        assert whole.choices[0].text == expected
        pieces = client.completions.create(model=demo.name, prompt=PROMPT, max_tokens=24, temperature=0, stream=True)
        assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == expected
        question = [{"role": "user", "content": "What does json.dumps do?"}]
        answers = []
        for stream in (False, True):
            answer = client.chat.completions.create(
                model=demo.name, messages=question, max_tokens=24, seed=7, stream=stream
            )  # type: ignore[call-overload]
            if stream:
                answers.append("".join(c.choices[0].delta.content or "" for c in answer if c.choices))
            else:
                answers.append(answer.choices[0].message.content or "")
        assert answers[0] == answers[1]
