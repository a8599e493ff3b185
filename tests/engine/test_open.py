import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from ownlm.data.message import Message
from ownlm.engine.local import LocalModel
from ownlm.engine.open import Weights, folder_id, open_folder, open_model
from ownlm.engine.request import SamplingParams
from ownlm.model.files import save_model
from ownlm.runtime.errors import ArtifactDamaged, ModelNotFound, OwnLMError
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Build, Workspace


@pytest.fixture
def artifact(workspace: Workspace) -> Artifact:
    """A base model with an alias, beside an artifact of another kind."""

    def build(build: Build) -> dict[str, Any]:
        save_model(build.folder, tiny.decoder(), tiny.tokenizer())
        return {"heldout_bits_per_byte": 1.25}

    made, _ = workspace.make("model", "tiny", build, settings={"stage": "base"})
    workspace.point("first-model", made)
    workspace.make("plan", "other", lambda build: {})
    return made


def test_by_alias_name_id_and_folder(workspace: Workspace, artifact: Artifact) -> None:
    expected = tiny.model().generate(["def"], SamplingParams(temperature=0))
    for name in ("first-model", "tiny", artifact.id, artifact.id[:6], artifact.label, str(artifact.path)):
        model = open_model(name, workspace)
        assert model.generate(["def"], SamplingParams(temperature=0)) == expected
        assert model.facts.context == 64 and model.facts.parameters == tiny.config().parameters
    facts = open_model("first-model", workspace).facts
    assert (facts.name, facts.id, facts.stage, facts.heldout_bits_per_byte) == (
        "first-model",
        artifact.id,
        "base",
        1.25,
    )
    # A plain folder says nothing of how it was measured.
    assert open_model(str(artifact.path), workspace).facts.heldout_bits_per_byte is None


def test_an_unknown_name_lists_what_there_is(workspace: Workspace, artifact: Artifact, tmp_path: Path) -> None:
    for name in ("frist-model", "other", str(tmp_path / "nowhere"), "", "../x"):
        with pytest.raises(ModelNotFound, match="There is: first-model, tiny"):
            open_model(name, workspace)


def test_an_empty_workspace_says_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(ModelNotFound, match="`ownlm demo` builds a first model"):
        open_model("first-model", workspace)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_tampered_artifact_is_not_opened(workspace: Workspace, artifact: Artifact, file: str) -> None:
    path = artifact.path / file
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactDamaged, match=rf"{file} is not what was written"):
        open_model("first-model", workspace)
    path.write_bytes(data[:-10])
    with pytest.raises(ArtifactDamaged, match="cut short or changed"):
        open_model("first-model", workspace)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", tiny.decoder(), tiny.tokenizer())
    return tmp_path / "model"


def test_more_tokens_than_embeddings(folder: Path) -> None:
    save_model(folder, tiny.decoder(vocabulary=300), tiny.tokenizer())
    with pytest.raises(OwnLMError, match=f"tokenizer has {tiny.tokenizer().vocab_size} tokens, the embedding only 300"):
        open_folder(folder, "tiny")


def test_the_folders_own_chat_template_is_used(folder: Path) -> None:
    def rendered() -> str:
        return open_folder(folder, "tiny").chat.render([Message.of("user", "hi")])

    assert rendered() == "<|im_start|>user\nhi<|im_end|>\n"
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "chat_template": "config: {{ messages[0]['content'] }}"}))
    assert rendered() == "config: hi"
    (folder / "chat_template.jinja").write_text("file: {{ messages[0]['content'] }}")
    assert rendered() == "file: hi"
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": "named"}, {"name": "tool_use", "template": "x"}]
    path.write_text(json.dumps({**config, "chat_template": named}))
    assert rendered() == "named"
    path.write_text(json.dumps({**config, "chat_template": 3}))
    with pytest.raises(OwnLMError, match="chat_template must be a string, or a list"):
        rendered()


def test_a_folders_id_follows_its_contents(folder: Path, workspace: Workspace) -> None:
    """Two folders of one name are two models; one model at two places is one."""
    for place, seed in (("same", 0), ("other", 1)):
        save_model(folder.parent / place / "model", tiny.decoder(seed), tiny.tokenizer())
    facts, same, other = (
        open_model(str(folder.parent / place / "model"), workspace).facts for place in (".", "same", "other")
    )
    assert facts.name == same.name == other.name == "model"
    assert facts.id == same.id == folder_id(folder) != other.id
    (folder / "README.md").write_text("words")
    assert folder_id(folder) == facts.id, "what does not decide the answers does not count"
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert folder_id(folder) != facts.id
    assert open_folder(folder, "tiny", identifier="0123").facts.id == "0123"


@pytest.mark.parametrize("precision", ["bf16", "float16", ""])
def test_an_unknown_precision_is_refused(folder: Path, workspace: Workspace, precision: str) -> None:
    for start in (
        lambda: open_folder(folder, "tiny", weights=Weights(precision)),
        lambda: open_model(str(folder), workspace, Weights(precision)),
    ):
        with pytest.raises(OwnLMError, match=rf"precision='{precision}': it is auto, float32 or bfloat16"):
            start()


def test_bfloat16_is_asked_for_by_name(folder: Path) -> None:
    import torch

    model = open_folder(folder, "tiny", weights=Weights("bfloat16"))
    assert isinstance(model, LocalModel) and model.decoder.compute_dtype == torch.bfloat16
    assert model.decoder.head.dtype == torch.bfloat16


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_auto_keeps_bfloat16_and_holds_the_rest_in_float32(tmp_path: Path, stored: str) -> None:
    import torch

    save_model(tmp_path, tiny.decoder().to(getattr(torch, stored)), tiny.tokenizer())
    decoder = open_folder(tmp_path, "tiny").decoder
    wanted = torch.bfloat16 if stored == "bfloat16" else torch.float32
    assert {parameter.dtype for parameter in decoder.parameters()} == {wanted}
    assert decoder.compute_dtype == wanted
    assert open_folder(tmp_path, "tiny", weights=Weights("float32")).decoder.head.dtype == torch.float32


@pytest.mark.parametrize("quantize", ["int8", "int4:32"])
def test_quantised_at_load_and_from_disk_are_the_same_model(folder: Path, tmp_path: Path, quantize: str) -> None:
    import torch

    from ownlm.engine.exporting import export_folder, exportable
    from ownlm.model.quantised import QuantisedEmbedding, QuantisedLinear
    from ownlm.runtime.progress import Screen

    place = Workspace(tmp_path / "w")
    written = export_folder(
        exportable(str(folder), place), tmp_path / "small", place, Screen(quiet=True), quantize=quantize
    )
    one = open_folder(folder, "one", weights=Weights("float32", quantize))
    two = open_folder(written, "two", weights=Weights("float32"))
    for model in (one, two):
        assert isinstance(model.decoder.embed_tokens, QuantisedEmbedding)
        assert isinstance(model.decoder.layers[0].self_attn.q_proj, QuantisedLinear)
        assert isinstance(model.decoder.layers[1].mlp.down_proj, QuantisedLinear)
    ids = tiny.random_ids(2, 30)
    plain = open_folder(folder, "plain").decoder
    with torch.no_grad():
        found, again, exact = one.decoder(ids), two.decoder(ids), plain(ids)
    assert torch.equal(found, again)
    away = float((found - exact).norm() / exact.norm())
    assert 0 < away < (0.2 if quantize == "int8" else 0.9)  # these weights are loud
    files = {path.name for path in written.iterdir()}
    assert files == {path.name for path in folder.iterdir()}
    with pytest.raises(OwnLMError, match="quantised weights already"):
        open_folder(written, "two", weights=Weights(quantize="int8"))


def test_an_unknown_quantisation_lists_the_known(folder: Path) -> None:
    with pytest.raises(OwnLMError, match="'int3' is no quantisation; the valid ones are int8, int4"):
        open_folder(folder, "tiny", weights=Weights(quantize="int3"))
