import json

from ownlm.report.lineage import lineage, render_text
from ownlm.store.workspace import Workspace
from report.fake import models


def test_the_tree_reaches_the_documents(workspace: Workspace) -> None:
    tree = lineage(models(workspace), workspace)
    kinds = [node.artifact.kind for node in tree.walk() if node.artifact]
    assert kinds[0] == "model" and {"corpus", "tokenizer", "tokens", "plan", "preferences"} <= set(kinds)
    text = render_text(tree)
    assert text.startswith(f"model first-model-{tree.id}\n") and "(see above)" in text
    assert text.count("├─ tokens:") == 1


def test_removed_inputs_keep_their_id(workspace: Workspace) -> None:
    model = models(workspace)
    base = workspace.resolve("first-model-base")
    workspace.remove(base)
    tree = lineage(model, workspace)
    assert f"{base.id} (no longer here)" in render_text(tree)
    assert tree.to_json()["made_from"]["model"]["made_from"]["base"] == {"id": base.id, "removed": True}


def test_a_forged_circle_ends(workspace: Workspace) -> None:
    model = models(workspace)
    manifest = model.path / "artifact.json"
    data = json.loads(manifest.read_text())
    data["inputs"]["self"] = model.id
    manifest.write_text(json.dumps(data))
    assert "no longer here" in render_text(lineage(workspace.by_id(model.id), workspace))
