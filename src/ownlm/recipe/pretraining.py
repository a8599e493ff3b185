"""`ownlm pretrain`: a base model from documents, from another model or a teacher; in one process or several."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from ownlm.data.sources import folder_source
from ownlm.recipe import continued, distilled
from ownlm.recipe.context import RunContext
from ownlm.recipe.continued import Replay
from ownlm.recipe.hyperparameters import Hyperparameters
from ownlm.recipe.runner import Stage, outside, run_stages
from ownlm.recipe.schema import CorpusPart, Recipe, check_budget
from ownlm.recipe.stages import corpus as corpus_stage
from ownlm.recipe.stages import plan as plan_stage
from ownlm.recipe.stages import pretrain as pretrain_stage
from ownlm.recipe.stages import tokenizer as tokenizer_stage
from ownlm.recipe.stages import tokens as tokens_stage
from ownlm.runtime.errors import ArtifactNotFound, OwnLMError
from ownlm.runtime.progress import Screen
from ownlm.runtime.signals import Interruption, catch_interrupts
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace, check_name

if TYPE_CHECKING:
    from ownlm.recipe.team import Team


@dataclass(frozen=True)
class Request:
    """What `ownlm pretrain` was asked for; None where nothing was said."""

    folder: Path | None = None
    corpus: str | None = None
    minutes: float | None = None
    plan: str | None = None
    init: str | None = None
    replay: str | None = None
    teacher: str | None = None
    fim: float = 0.0
    name: str | None = None
    steps: int | None = None
    track: tuple[str, ...] = ()
    tensor_parallel: int = 1
    device: str | None = None
    megabytes: float | None = None
    seed: int = 0
    chosen: tuple[str, ...] = ()

    @property
    def hyperparameters(self) -> Hyperparameters:
        """What was chosen with --set."""
        return Hyperparameters.parse(self.chosen)

    def check(self) -> None:
        """Looks at what needs no look at the workspace.

        Raises:
            OwnLMError: options that exclude each other, or a value out of its range.
        """
        from ownlm.data.fill_in_the_middle import FillInTheMiddle
        from ownlm.train.trackers import require_trackers

        for both, why in (
            (("folder", "corpus"), "the documents come from one of them"),
            (("plan", "minutes"), "a plan has its own"),
            (("plan", "device"), "a plan has its own"),
            (("plan", "folder"), "a plan is made for a corpus; name that one, or leave it out"),
            (("plan", "init"), "a plan is of a new model, and this one has its size"),
            (("replay", "teacher"), "a teacher is asked about the new documents only"),
        ):
            if all(getattr(self, field) is not None for field in both):
                first, second = (_OPTIONS.get(field, f"--{field}") for field in both)
                raise OwnLMError(f"{first} and {second} do not go together: {why}. Leave one of them out.")
        if self.replay is not None and self.init is None:
            raise OwnLMError("--replay is about the documents that an earlier model learned from: add --init MODEL.")
        if self.megabytes is not None and self.folder is None:
            raise OwnLMError("--megabytes says how much of DIR is read: name a folder.")
        if self.megabytes is not None and not 0.01 <= self.megabytes <= 1e9:
            raise OwnLMError(f"--megabytes {self.megabytes:g}: a number between 0.01 and 1e9 was expected.")
        if self.steps is not None and not 1 <= self.steps <= 10**9:
            raise OwnLMError(f"--steps {self.steps}: a number between 1 and 1e9 was expected.")
        if not 0 <= self.seed < 2**31:
            raise OwnLMError(f"--seed {self.seed}: a whole number between 0 and 2147483647 was expected.")
        if self.minutes is not None:
            check_budget(self.minutes)
        if self.name is not None:
            check_name(self.name)
        FillInTheMiddle(self.fim)
        _ = self.hyperparameters
        if self.replay is not None:
            Replay.parse(self.replay)
        require_trackers(self.track)


_OPTIONS = {"folder": "DIR"}


def pretrain(request: Request, workspace: Workspace, screen: Screen, command: Sequence[str] = ()) -> Artifact | None:
    """Makes what is missing of corpus, plan, tokenizer and tokens, and trains; what is there is not made again.

    `command` is what one types after `ownlm` to go on with it. Started by torchrun, the main process prepares and all
    of them train; the others return None.

    Raises:
        OwnLMError: an unknown name, an option that makes no sense here, too little time, memory or disk.
        Interrupted: Ctrl-C or SIGTERM; everything is saved.
    """
    request.check()
    # The compiler's results are kept beside the artifacts, so that a second start does not pay for them again.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(workspace.root / ".cache" / "inductor"))
    from ownlm.recipe.team import launched_team

    with ExitStack() as stack:
        interruption = stack.enter_context(catch_interrupts())
        team = stack.enter_context(launched_team(request.tensor_parallel, request.device))
        if not team.main:
            _follow(team, request, workspace, interruption)
            return None
        with team.led():
            run = _Run(request, workspace, screen, interruption, team)
            return run.go(command)


class _Run:
    """One command: what was named is found first, then made stage by stage."""

    def __init__(
        self, request: Request, workspace: Workspace, screen: Screen, interruption: Interruption, team: Team
    ) -> None:
        self.request, self.team = request, team
        if request.hyperparameters.float8:
            from ownlm.train.float8 import require_float8

            require_float8(request.device or team.device, request.tensor_parallel)
        documents, sources = _documents(request, workspace)
        name = _tidy(request.folder.resolve().name) if documents is None and request.folder else ""
        recipe = Recipe(
            documents.name if documents else name,
            (str(request.folder),) if request.folder else (),
            seed=request.seed,
            corpus=CorpusPart(max_megabytes=request.megabytes),
            pretrain=request.hyperparameters,
        )
        minutes = Recipe.minutes if request.minutes is None else request.minutes
        self.context = RunContext(recipe, workspace, screen, interruption, minutes, sources)
        self.replayed = 0.0
        if documents is not None:
            self.context.artifacts["corpus"] = documents
        if request.plan is not None:
            self._take_plan(request.plan)
        if request.init is not None:
            self._take_init(request.init)
        if request.teacher is not None:
            self._take_teacher(request.teacher)

    # ---- what was named

    def _take_plan(self, name: str) -> None:
        from ownlm.recipe.plan import PLAN, Plan

        artifacts, place = self.context.artifacts, self.context.workspace
        plan = place.resolve(name, ("plan",))
        if plan.settings.get("stage") is not None:
            raise OwnLMError(f"--plan {name}: that one does not plan a new model. `ownlm plan --minutes N` makes one.")
        made_for = place.by_id(plan.inputs["corpus"])
        if self.request.corpus is not None and artifacts["corpus"].id != made_for.id:
            raise OwnLMError(
                f"--plan {name} was made for the corpus {made_for.label}, not for {artifacts['corpus'].label}. Leave "
                "--corpus out, or plan anew."
            )
        artifacts["corpus"], artifacts["plan"] = made_for, plan
        self.context.minutes = Plan.read(plan.file(PLAN)).minutes
        self.context.recipe = Recipe(made_for.name, (), seed=self.request.seed, pretrain=self.request.hyperparameters)

    def _take_init(self, name: str) -> None:
        from ownlm.data.fill_in_the_middle import fim_ids
        from ownlm.data.tokenizer_files import load_tokenizer
        from ownlm.model.checkpoint import Checkpoint

        context, place = self.context, self.context.workspace
        replay = None if self.request.replay is None else Replay.parse(self.request.replay)
        known = continued.known_model(name, place, "--init")
        old = None
        if replay is not None:  # before anything is brought in
            old = self._old_corpus(name, replay, None if known is None else continued.corpus_of(known, place))
            self.replayed = replay.share
        init = known or continued.bring_in(name, place, context.screen)
        Checkpoint(init.path)
        tokenizer = load_tokenizer(init.path)
        _ = tokenizer.end_of_text
        if self.request.fim:
            fim_ids(tokenizer)
        context.artifacts |= {"init": init, "tokenizer": init}
        own, new = old or continued.corpus_of(init, place), context.artifacts.get("corpus")
        if own is not None and (new is None or own.id != new.id):
            context.artifacts["own"] = own

    def _old_corpus(self, name: str, replay: Replay, known: Artifact | None) -> Artifact:
        """The corpus that is replayed.

        Raises:
            OwnLMError: none was named and none is known, or it is the new one.
        """
        found = known if replay.corpus is None else self.context.workspace.resolve(replay.corpus, ("corpus",))
        if found is None:
            raise OwnLMError(
                f"--replay {self.request.replay}: what {name} learned from is not known here. Name a corpus that is "
                f"like it: --replay {replay.share * 100:g}%:CORPUS (`ownlm ls corpus` lists them)."
            )
        new = self.context.artifacts.get("corpus")
        if new is not None and new.id == found.id:
            raise OwnLMError(
                f"--replay {self.request.replay}: the new documents are the old ones, the corpus {found.label}. Name "
                "another with --corpus, or a folder."
            )
        return found

    def _take_teacher(self, name: str) -> None:
        from ownlm.data.fill_in_the_middle import fim_ids
        from ownlm.data.tokenizer_files import load_tokenizer
        from ownlm.model.checkpoint import Checkpoint

        context = self.context
        known = continued.known_model(name, context.workspace, "--teacher")
        teacher = known or continued.bring_in(name, context.workspace, context.screen)
        Checkpoint(teacher.path)
        tokenizer = load_tokenizer(teacher.path)
        _ = tokenizer.end_of_text, tokenizer.end_of_turn
        if self.request.fim:
            fim_ids(tokenizer)
        init = context.artifacts.get("init")
        if init is None:
            context.artifacts["tokenizer"] = teacher
        elif not distilled.same_vocabulary(tokenizer, load_tokenizer(init.path)):
            raise OwnLMError(
                f"--teacher {name} has another vocabulary than {init.name}: what it says next means other tokens. Take "
                "a teacher of the same family, or train a student from scratch."
            )
        context.artifacts["teacher"] = teacher

    # ---- what is made of it

    def go(self, command: Sequence[str]) -> Artifact:
        """Runs the stages that are needed; the model."""
        self._announce()
        stages = [*self._first(), *self._last()]
        run_stages(self.context, stages, command)
        return self.context.artifacts["base"]

    def _first(self) -> list[Stage]:
        context, device = self.context, self.request.device or self.team.device
        plan: Callable[..., Any] | None
        plan, told = partial(plan_stage.make, device=device, whole_chain=False), plan_stage.sentence
        if "init" in context.artifacts:
            plan, told = partial(continued.make_plan, device=device), continued.plan_sentence
        elif "teacher" in context.artifacts:
            plan = partial(_plan_student, given=context.artifacts.get("plan"), device=device)
        elif "plan" in context.artifacts:
            plan = None
        stages = [] if "corpus" in context.artifacts else [Stage("corpus", "Corpus", corpus_stage)]
        if plan is not None:
            stages.append(_stage("plan", "Plan", plan, told))
        if "tokenizer" not in context.artifacts:
            make = partial(tokenizer_stage.make, fim=self.request.fim > 0)
            stages.append(_stage("tokenizer", "Tokenizer", make, tokenizer_stage.sentence))
        make_tokens = partial(tokens_stage.make, fim=self.request.fim)
        stages.append(_stage("tokens", "Tokens", make_tokens, tokens_stage.sentence))
        if self.replayed:
            again = partial(tokens_stage.make, corpus=context.artifacts["own"])
            stages.append(_stage("replay", "Old tokens", again, tokens_stage.sentence))
        if "teacher" in context.artifacts:
            stages.append(_stage("draws", "Teacher", self._draws, distilled.draws_sentence))
        return stages

    def _draws(self, context: RunContext) -> tuple[Artifact, bool]:
        from ownlm.recipe.course import Course

        course = continued.read_course(context, None) if "init" in context.artifacts else Course.of(context.plan)
        return distilled.make_draws(context, course)

    def _last(self) -> list[Stage]:
        def begin(target: Build) -> None:
            self.team.start((self.context.artifacts, self.context.recipe, self.replayed, target))

        request, context = self.request, self.context
        options: dict[str, Any] = {"steps": request.steps, "options": self.team.options(request.track), "begin": begin}
        if "init" in context.artifacts:
            make = partial(self._continue, options)
            return [_stage("base", "Pre-training", make, continued.sentence)]
        suffix = "distilled" if "teacher" in context.artifacts else "base"
        name = request.name or f"{context.recipe.name}-{suffix}"
        base = partial(pretrain_stage.make, name=name, **options)
        return [_stage("base", "Pre-training", base, pretrain_stage.sentence)]

    def _continue(self, options: dict[str, Any], context: RunContext) -> tuple[Artifact, bool]:
        name = self.request.name or f"{context.artifacts['init'].name}-{context.recipe.name}"[:120]
        return continued.make(context, self.replayed, name=name, **options)

    def _announce(self) -> None:
        context, screen = self.context, self.context.screen
        if context.sources:
            from ownlm.data.corpus import survey

            settings = context.recipe.corpus.settings(context.minutes, context.recipe.seed)
            found = survey(context.sources, settings)
            size = min(found.bytes, settings.max_bytes or found.bytes)
            what = f"{size / 1e6:.1f} of {found.bytes / 1e6:.1f} MB in {found.files:,} files of {self.request.folder}"
        else:
            corpus = context.artifacts["corpus"]
            what = f"the corpus {corpus.label} ({corpus.metrics.get('bytes', 0) / 1e6:.1f} MB)"
        screen.say(
            f"This run reads {what}, takes about {context.minutes:g} minutes and writes into {context.workspace.root}. "
            "Nothing leaves this machine."
        )
        if self.team.size > 1:
            screen.say(
                f"{self.team.size} processes share each batch of a plan that was made for one of them: it may take "
                "less time. --steps N trains for longer."
            )


def _follow(team: Team, request: Request, workspace: Workspace, interruption: Interruption) -> None:
    """What a process does that is not the main one: it trains when there is something to train."""
    job = team.wait()
    if job is None:
        return
    artifacts, recipe, replayed, target = job
    context = RunContext(recipe, workspace, Screen(quiet=True), interruption, 0.0, artifacts=artifacts)
    options = team.options(())
    if "init" in artifacts:
        continued.train_continued(context, target, replayed, request.steps, options)
    else:
        pretrain_stage.train_from_scratch(context, target, request.steps, options)


def _plan_student(context: RunContext, given: Artifact | None, device: str | None) -> tuple[Artifact, bool]:
    plan = given or plan_stage.make(context, device, whole_chain=False)[0]
    return distilled.plan_student(context, plan)


def _stage(role: str, title: str, make: Callable[..., Any], sentence: Callable[..., str]) -> Stage:
    return Stage(role, title, cast(ModuleType, SimpleNamespace(make=make, sentence=sentence)))


def _documents(request: Request, workspace: Workspace) -> tuple[Artifact | None, list[Any]]:
    """The corpus that was named, or the newest; or the folder that one is made from.

    Raises:
        OwnLMError: no such corpus or folder, or none at all.
    """
    if request.folder is not None:
        return None, [outside(folder_source(request.folder), workspace.root)]
    if request.corpus is not None:
        return workspace.resolve(request.corpus, ("corpus",)), []
    if request.plan is not None:
        plan = workspace.resolve(request.plan, ("plan",))
        return workspace.by_id(plan.inputs["corpus"]) if "corpus" in plan.inputs else None, []
    present = workspace.artifacts("corpus")
    if not present:
        raise ArtifactNotFound(
            "There are no documents to learn from yet: `ownlm pretrain DIR` makes a corpus of a folder of yours."
        )
    return present[-1], []


def _tidy(name: str) -> str:
    """A folder's name as one that artifacts may have."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.+")[:100] or "corpus"
