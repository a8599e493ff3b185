"""Continued pre-training: a model that exists goes on learning, from new documents and a share of its old ones."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.recipe.context import RunContext
from ownlm.recipe.plan import PLAN
from ownlm.recipe.stages.pretrain import STARTERS, taught_by
from ownlm.runtime import atomic
from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound, ModelNotFound, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ownlm.data.tokenizer_protocol import AnyTokenizer
    from ownlm.model.decoder import Decoder
    from ownlm.recipe.base_training import RunOptions
    from ownlm.recipe.course import Course

CODE_VERSION = 2
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_ANEW = ("config.json", "README.md")
"""What the new model does not take over: its config is written anew, and another model's card does not fit it."""


@dataclass(frozen=True)
class Replay:
    """The `share` of the windows that come from old documents, and the corpus that was named for them."""

    share: float
    corpus: str | None = None

    @classmethod
    def parse(cls, text: str) -> Replay:
        """From "10%", "0.1" or "10%:CORPUS".

        Raises:
            OwnLMError: no number, or one that is no share.
        """
        number, _, corpus = text.partition(":")
        try:
            share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0.001 <= share <= 0.9:
            raise OwnLMError(
                f"--replay {text}: a share between 0.1% and 90% was expected, such as 10% or 10%:CORPUS for a corpus "
                "of your choice."
            )
        return cls(share, corpus or None)


def known_model(name: str, workspace: Workspace, option: str) -> Artifact | None:
    """The artifact of the model that MODEL names; None for one that has to be brought in first.

    Raises:
        ModelNotFound: nothing has that name; the message lists what there is.
        ArtifactDamaged: a file of it was cut short or changed.
        OwnLMError: it is an adapter, or on another machine.
    """
    if name.startswith("openai:"):
        raise OwnLMError(f"{option} {name}: its weights are on another machine. Name a model here, or hf:ORG/NAME.")
    try:
        artifact = workspace.resolve(name, ("model", "adapter"))
    except ArtifactNotFound as error:
        if name.startswith("hf:") or name.endswith(".gguf") or (Path(name) / "config.json").is_file():
            return None
        raise ModelNotFound(str(error)) from None
    if artifact.kind == "adapter":
        raise OwnLMError(f"{option} {name}: that is an adapter. `ownlm adapter merge {name}` makes a model of it.")
    artifact.verify()
    return artifact


def bring_in(name: str, workspace: Workspace, screen: Screen) -> Artifact:
    """The artifact of a model from elsewhere, so that what is made of it knows where it came from."""
    from ownlm.engine.importing import import_model

    return import_model(name, workspace, screen).artifact


def corpus_of(artifact: Artifact, workspace: Workspace) -> Artifact | None:
    """The corpus that a model learned from last, found in its lineage; None for one from elsewhere."""
    if artifact.kind == "corpus":
        return artifact
    for identifier in artifact.inputs.values():
        try:
            found = corpus_of(workspace.by_id(identifier), workspace)
        except (ArtifactNotFound, ArtifactDamaged):
            continue
        if found is not None:
            return found
    return None


def make_plan(context: RunContext, device: str | None) -> tuple[Artifact, bool]:
    """The plan artifact of continuing the artifact "init" for the run's minutes: measured once, then kept."""
    from importlib.metadata import version

    from ownlm.runtime.device import machine_name

    def build(target: Build) -> dict[str, Any]:
        from ownlm.model.folder import read_config
        from ownlm.recipe.continued_course import plan_course

        config, _ = read_config(context.path("init"))
        data = plan_course(config, context.minutes, device)
        atomic.write_json(target.folder / PLAN, data)
        return {"parameters": config.parameters, "steps": data["steps"], "seconds": data["seconds"]}

    return context.workspace.make(
        "plan",
        context.recipe.name,
        build,
        inputs=context.inputs("init", "corpus"),
        settings={
            "stage": "continue", "minutes": context.minutes, "machine": machine_name(), "torch": version("torch"),
            **({"device": device} if device else {}),
        },
        code_version=CODE_VERSION,
    )  # fmt: skip


def plan_sentence(context: RunContext, artifact: Artifact) -> str:
    """What is going to be trained."""
    found = json.loads(artifact.file(PLAN).read_text("utf-8"))
    tokens = found["steps"] * found["batch_tokens"]
    return (
        f"{context.minutes:g} minutes are enough for {context.artifacts['init'].name} "
        f"({found['parameters'] / 1e6:.1f} million parameters) to read {tokens / 1e6:.1f} million tokens more in "
        f"{found['seconds']:.0f} s."
    )


def read_course(context: RunContext, steps: int | None) -> Course:
    """The course that the plan fixed; `steps` takes the place of the plan's."""
    from ownlm.recipe.course import Course

    course = Course.read(context.artifacts["plan"].file(PLAN))
    course = dataclasses.replace(course, chosen=context.recipe.pretrain)
    return course if steps is None else dataclasses.replace(course, steps=steps)


def make(
    context: RunContext,
    replayed: float,
    *,
    name: str,
    steps: int | None = None,
    options: RunOptions | None = None,
    begin: Callable[[Build], None] | None = None,
) -> tuple[Artifact, bool]:
    """The continued model, from the artifacts "init", "tokens" and "plan".

    With `replayed` above 0 that share of the windows comes from "replay". "own" is the corpus of the model's own
    domain, where it is known; with "teacher" and "draws" it learns from a teacher as well.
    """
    course = read_course(context, steps)
    roles = [role for role in ("replay", "teacher", "draws", "own") if role in context.artifacts]

    def build(target: Build) -> dict[str, Any]:
        if begin is not None:
            begin(target)
        return train_continued(context, target, replayed, steps, options)

    artifact, reused = context.workspace.make(
        "model",
        name,
        build,
        inputs=context.inputs("tokens", "plan", "init", *roles),
        settings={
            "stage": "base", "objective": "distil" if "draws" in roles else "continue", "replay": replayed,
            "rates": dataclasses.asdict(course.rates), "steps": course.steps, "seed": context.recipe.seed,
            **course.chosen.settings,
        },
        code_version=CODE_VERSION,
        resumable=True,
    )  # fmt: skip
    context.workspace.point(name, artifact)
    return artifact, reused


def train_continued(
    context: RunContext, target: Build, replayed: float, steps: int | None, options: RunOptions | None
) -> dict[str, Any]:
    """Trains and measures; every process of a run calls this, and the main one writes the model and gets metrics."""
    import torch

    from ownlm.data.tokenizer_files import load_tokenizer
    from ownlm.model.checkpoint import Checkpoint
    from ownlm.model.files import load_model
    from ownlm.model.kernels import use
    from ownlm.recipe.base_training import RunOptions, prepare_threads, train_base
    from ownlm.recipe.objectives import base_objective

    options, course, init = options or RunOptions(), read_course(context, steps), context.path("init")
    world = options.on(course)
    prepare_threads(course, world)
    tokenizer, stored = load_tokenizer(init), Checkpoint(init)
    # Whatever the precision of its files, the weights that learn are fp32.
    decoder = use(load_model(init, dtype=torch.float32), course.kernels)
    before = _before(context, target, decoder, tokenizer, course) if world.main else {}
    objective = base_objective(context, course, tokenizer.vocab_size, world, replayed)
    told = {"plan": dataclasses.asdict(course), "replay": replayed, "inputs": context.inputs("init", "tokens", "plan")}
    whole, result = train_base(context, target, decoder, objective, course, tokenizer, options, told)
    if whole is None:
        return {}
    _save(target.folder, init, whole.to(stored.precision), stored)
    # As it will be opened: what rounding to the precision of its files costs is in the numbers.
    after = _measure(context, whole.to(torch.float32), tokenizer, course)
    atomic.write_json(target.folder / STARTERS, context.main_kit.starters())
    domains = {
        role: {"corpus": context.artifacts[role].name, "before": before[role], "after": found["heldout_bits_per_byte"]}
        for role, found in after.items()
    }
    return {
        **dataclasses.asdict(result),
        **after["corpus"],
        **taught_by(context, course.heldout_bytes),
        "domains": {"new" if role == "corpus" else role: each for role, each in domains.items()},
        "replay": replayed,
        "parameters": whole.config.parameters,
        "context": whole.config.context,
        "train_bits_per_byte": round(objective.describe(result.loss)["bits_per_byte"], 4),
        "tokens_per_second": round(result.tokens / result.seconds),
    }


def _before(
    context: RunContext, target: Build, decoder: Decoder, tokenizer: AnyTokenizer, course: Course
) -> dict[str, float]:
    """Bits per byte of both domains before the first step; measured once, also where the run was cut off."""
    path = target.state / "before.json"
    if not path.exists():
        found = _measure(context, decoder, tokenizer, course)
        atomic.write_json(path, {role: each["heldout_bits_per_byte"] for role, each in found.items()})
    values: dict[str, float] = json.loads(path.read_text("utf-8"))
    return values


def _measure(
    context: RunContext, decoder: Decoder, tokenizer: AnyTokenizer, course: Course
) -> dict[str, dict[str, Any]]:
    """What held-out documents of the new domain ("corpus") and of the model's own ("own") cost it."""
    from ownlm.recipe.training import heldout_documents, measure

    roles = [role for role in ("corpus", "own") if role in context.artifacts]
    return {
        role: measure(
            decoder, tokenizer, heldout_documents(context.path(role), course.heldout_bytes, context.recipe.seed)
        )
        for role in roles
    }


def _save(folder: Path, init: Path, decoder: Decoder, stored: Any) -> None:
    """A model of the same family, in the same precision, with the files that lay beside the first one."""
    from ownlm.model.files import save_weights
    from ownlm.model.folder import config_data, model_files

    data = config_data(init)
    save_weights(folder, decoder, stored.family, {key: data[key] for key in _ENDS if key in data})
    for path in model_files(init):
        name = path.relative_to(init)
        if path.suffix != ".safetensors" and not path.name.endswith(".index.json") and name.as_posix() not in _ANEW:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)


def sentence(context: RunContext, artifact: Artifact) -> str:
    """What was learned, and what was forgotten."""
    found = artifact.metrics
    new, own = found["domains"]["new"], found["domains"].get("own")
    replayed = f", {100 * found['replay']:.3g} % of them replayed," if found["replay"] else ""
    kept = (
        f" That of its own domain, {own['corpus']}, costs {own['after']:.3f} instead of {own['before']:.3f}."
        if own
        else " What it was trained on before is not known here, so what it forgot of it is not measured."
    )
    teacher = found.get("teacher")
    beside = f" Its teacher {teacher} pays {found['teacher_bits_per_byte']:.3f}." if teacher else ""
    return (
        f"{context.artifacts['init'].name} went on with {found['tokens'] / 1e6:.1f} million tokens{replayed} in "
        f"{found['seconds']:.0f} s ({found['tokens_per_second']:,} tokens/s): held-out text of {new['corpus']} costs "
        f"{new['after']:.3f} bits per byte instead of {new['before']:.3f}.{kept}{beside}"
    )
