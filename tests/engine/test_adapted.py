"""A base and its adapters served together: each answers as a model of its own would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

import tiny
from ownlm.data.chat_format import ChatFormat
from ownlm.engine.adapted import AdaptedModel, SharedBase, adapter_of, base_of, open_adapted
from ownlm.engine.local import LocalModel
from ownlm.engine.open import ModelOpener, Weights, open_folder
from ownlm.engine.request import Event, Finished, LanguageModel, ModelFacts, SamplingParams, TextDelta
from ownlm.model.adapters import Adapter, AdapterConfig, Adapters, fresh_adapter, save_adapter
from ownlm.model.adapters.merge import merge_folder
from ownlm.model.families.qwen3 import family
from ownlm.model.files import load_model, save_model
from ownlm.runtime.errors import ModelNotFound, OwnLMError
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace

GREEDY = SamplingParams(max_tokens=24, temperature=0, logprobs=1)
PROMPTS = ["def", "The quick brown fox", "for index in"]
CONFIGS = {
    "one": AdapterConfig(rank=4, alpha=16, dora=True),
    "two": AdapterConfig(rank=2, alpha=16, target_modules=("q_proj", "down_proj")),
    "three": AdapterConfig(rank=2, alpha=16, target_modules=("lm_head", "up_proj")),
}


def trained(decoder: Any, config: AdapterConfig, seed: int = 0) -> Adapter:
    adapter = fresh_adapter(decoder, family, config, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3
    return adapter


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`base`, and an adapter for each config, as folders."""
    decoder = tiny.decoder()
    save_model(tmp_path / "base", decoder, tiny.tokenizer())
    for seed, (name, config) in enumerate(CONFIGS.items()):
        save_adapter(tmp_path / name, trained(decoder, config, seed))
    return tmp_path


def open_together(base: Path, adapters: dict[str, Path], name: str = "") -> dict[str, LocalModel]:
    """A base and adapters over one set of weights, by name."""
    model = open_folder(base, name or base.name)
    shared = SharedBase(model)
    return {model.facts.name: model, **{each: shared.open(folder, each) for each, folder in adapters.items()}}


def merged(folders: Path, name: str) -> LocalModel:
    merge_folder(folders / name, folders / "base", folders / f"merged-{name}")
    decoder = load_model(folders / f"merged-{name}")
    return LocalModel(decoder, tiny.tokenizer(), ChatFormat(), ModelFacts(name, "0", decoder.config.context))


def told(events: Iterator[Event]) -> str:
    *deltas, last = events
    assert isinstance(last, Finished)
    return "".join(each.text for each in deltas if isinstance(each, TextDelta))


def test_base_and_adapters_answer_as_models_of_their_own(folders: Path) -> None:
    models = open_together(folders / "base", {name: folders / name for name in CONFIGS}, "base")
    assert list(models) == ["base", *CONFIGS]
    decoders = {id(model.decoder) for model in models.values()}
    assert len(decoders) == 1, "one set of weights"
    alone = {"base": tiny.model(), **{name: merged(folders, name) for name in CONFIGS}}
    answers = {}
    for _ in range(2):
        for name in [*models, *reversed(models)]:
            answers[name] = [answer.token_ids for answer in models[name].generate(PROMPTS, GREEDY)]
            assert answers[name] == [answer.token_ids for answer in alone[name].generate(PROMPTS, GREEDY)], name
            assert models[name].score(PROMPTS)[1].bits_per_byte == pytest.approx(
                alone[name].score(PROMPTS)[1].bits_per_byte, rel=1e-4
            )
    assert len({str(each) for each in answers.values()}) == len(models)
    assert all(isinstance(model, LanguageModel) for model in models.values())


def test_requests_from_many_threads_do_not_mix(folders: Path) -> None:
    models = open_together(folders / "base", {name: folders / name for name in CONFIGS}, "base")
    expected = {name: told(model.stream("def", GREEDY)) for name, model in models.items()}
    order = [name for _ in range(3) for name in models]
    barrier = Barrier(len(order))

    def ask(name: str) -> str:
        barrier.wait()
        return told(models[name].stream("def", GREEDY))

    with ThreadPoolExecutor(len(order)) as pool:
        assert list(pool.map(ask, order)) == [expected[name] for name in order]


def test_a_stream_holds_the_base_until_it_ends_or_is_closed(folders: Path) -> None:
    models = open_together(folders / "base", {"one": folders / "one"}, "base")
    base, one = models["base"], models["one"]
    expected = base.generate(["def"], GREEDY)
    stream = one.stream("def", GREEDY)
    assert isinstance(next(stream), TextDelta)
    assert base._lock.locked() and one._lock.locked()
    stream.close()  # type: ignore[attr-defined]
    assert not base._lock.locked()
    assert base.generate(["def"], GREEDY) == expected


def test_a_failing_request_leaves_the_base_as_it_was(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = open_together(folders / "base", {"one": folders / "one"}, "base")
    expected = models["base"].generate(["def"], GREEDY)

    def fail(hidden: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr(models["one"], "_logits", fail)
        with pytest.raises(RuntimeError):
            list(models["one"].stream("def", GREEDY))
    assert models["base"].generate(["def"], GREEDY) == expected


def test_an_adapter_that_was_closed_is_gone_and_the_others_stay() -> None:
    shared = SharedBase(tiny.model(), family)
    one, two = (shared.add(trained(shared.model.decoder, CONFIGS[name]), name) for name in ("one", "two"))
    expected = two.generate(["def"], GREEDY)
    shared.close("one")
    with pytest.raises(OwnLMError, match="no adapter 'one' in memory"):
        one.generate(["def"], GREEDY)
    assert two.generate(["def"], GREEDY) == expected
    assert shared.model.generate(["def"], GREEDY) == tiny.model().generate(["def"], GREEDY)


def test_facts_tell_of_base_and_adapter(folders: Path) -> None:
    models = open_together(folders / "base", {"one": folders / "one", "two": folders / "two"}, "base")
    base, one, two = (models[name].facts for name in ("base", "one", "two"))
    assert (one.name, one.context, one.extra["base"]) == ("one", base.context, "base")
    assert len({base.id, one.id, two.id}) == 3
    assert base.parameters is not None and one.parameters is not None and one.parameters > base.parameters


def test_a_template_beside_the_adapter_is_its_own(folders: Path) -> None:
    template = "{% for message in messages %}({{ message['content'] }}){% endfor %}"
    (folders / "one" / "chat_template.jinja").write_text(template)
    models = open_together(folders / "base", {"one": folders / "one", "two": folders / "two"})
    assert models["one"].chat.templates == {"default": template}
    assert models["two"].chat is models["base"].chat


# ---- finding the base


def artifact(
    workspace: Workspace, kind: str, name: str, source: Path, inputs: dict[str, str] | None = None
) -> Artifact:
    def build(job: Build) -> dict[str, Any]:
        for path in source.iterdir():
            (job.folder / path.name).write_bytes(path.read_bytes())
        return {}

    return workspace.make(kind, name, build, inputs=inputs)[0]


def name_base(folder: Path, base: str | None) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))


def test_an_artifact_knows_its_base(folders: Path, workspace: Workspace) -> None:
    base = artifact(workspace, "model", "small", folders / "base")
    made = artifact(workspace, "adapter", "polite", folders / "one", {"base": base.id})
    opened = open_adapted("polite", workspace)
    assert isinstance(opened, AdaptedModel)
    assert (opened.facts.id, opened.facts.name) == (made.id, "polite")
    expected = merged(folders, "one").generate(PROMPTS, GREEDY)
    assert [each.token_ids for each in opened.generate(PROMPTS, GREEDY)] == [each.token_ids for each in expected]
    assert base_of(made.path, made, workspace) == base.path
    workspace.remove(base)
    with pytest.raises(ModelNotFound, match=rf"base of adapter {made.label}, model {base.id}, is no longer here"):
        open_adapted("polite", workspace)


def test_a_folder_of_peft_names_its_base_or_is_given_one(folders: Path, workspace: Workspace) -> None:
    one = folders / "one"
    assert adapter_of(str(folders / "base"), workspace) is None
    assert adapter_of("nothing", workspace) is None
    assert open_adapted("nothing", workspace) is None
    with pytest.raises(ModelNotFound, match=r"does not say what its base is: give it \(`ownlm adapter merge"):
        base_of(one, None, workspace)
    name_base(one, str(folders / "base"))
    assert base_of(one, None, workspace) == folders / "base"
    assert isinstance(open_adapted(str(one), workspace, weights=Weights("bfloat16")), AdaptedModel)
    name_base(one, "../base")
    assert base_of(one, None, workspace).resolve() == folders / "base"
    name_base(one, "org/model")
    with pytest.raises(ModelNotFound, match=r"made for org/model, which is not here: bring it"):
        open_adapted(str(one), workspace)
    assert isinstance(open_adapted(str(one), workspace, base=str(folders / "base")), AdaptedModel)
    with pytest.raises(ModelNotFound, match=r"base 'elsewhere' is no model of this workspace"):
        open_adapted(str(one), workspace, base="elsewhere")
    base = artifact(workspace, "model", "small", folders / "base")
    assert base_of(one, None, workspace, "small") == base.path


def test_adapters_and_a_merged_copy_can_be_in_use_at_once(folders: Path) -> None:
    """Merging for good happens on a decoder of its own."""
    decoder = load_model(folders / "base")
    adapters = Adapters(decoder)
    adapters.add("one", trained(decoder, CONFIGS["one"]))
    adapters.activate("one")
    adapters.merge()
    model = LocalModel(adapters.detach(), tiny.tokenizer(), ChatFormat(), ModelFacts("one", "0", 64))
    assert model.generate(PROMPTS, GREEDY)[0].token_ids == merged(folders, "one").generate(PROMPTS, GREEDY)[0].token_ids


def test_a_server_holds_a_base_once_for_itself_and_its_adapters(folders: Path, workspace: Workspace) -> None:
    for name in ("one", "two"):
        name_base(folders / name, str(folders / "base"))
    opener = ModelOpener()
    base, one, two = (opener(str(folders / name), workspace) for name in ("base", "one", "two"))
    assert all(isinstance(model, LocalModel) for model in (base, one, two))
    assert len({id(model.decoder) for model in (base, one, two)}) == 1  # type: ignore[attr-defined]
    alone = merged(folders, "one").generate(PROMPTS, GREEDY)
    assert [each.token_ids for each in one.generate(PROMPTS, GREEDY)] == [each.token_ids for each in alone]
    # An adapter that comes first brings its base along; the base is then that one's.
    opener = ModelOpener()
    first, then = (opener(str(folders / name), workspace) for name in ("two", "base"))
    assert first.decoder is then.decoder is not base.decoder  # type: ignore[attr-defined]
    again = opener(str(folders / "two"), workspace)
    assert [each.token_ids for each in again.generate(PROMPTS, GREEDY)] == [
        each.token_ids for each in two.generate(PROMPTS, GREEDY)
    ]


def test_what_nobody_holds_is_let_go(folders: Path, workspace: Workspace) -> None:
    import gc
    import weakref

    name_base(folders / "one", str(folders / "base"))
    opener = ModelOpener()
    model = opener(str(folders / "one"), workspace)
    decoder = weakref.ref(model.decoder)  # type: ignore[attr-defined]
    gc.collect()
    assert decoder() is not None
    del model
    gc.collect()
    assert decoder() is None


def test_weights_of_another_machine_cannot_be_quantised_here(workspace: Workspace) -> None:
    with pytest.raises(OwnLMError, match="is on another machine"):
        ModelOpener(Weights(quantize="int8"))("openai:http://localhost:1/v1#m", workspace)
