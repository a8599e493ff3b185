"""A model's ancestors."""

from ownlm.store.workspace import Workspace
from ownlm.studio.lineage import ancestors, heir, three_stages
from studio_types import make_models


def test_the_three_stages_of_a_model(workspace: Workspace) -> None:
    models = make_models(workspace)
    assert [each.id for each in ancestors(workspace, models["aligned"])] == [each.id for each in models.values()]
    assert three_stages(workspace, models["aligned"]) == models
    assert list(three_stages(workspace, models["base"])) == ["base"]


def test_the_heir_of_a_model(workspace: Workspace) -> None:
    models = make_models(workspace)
    assert {heir(workspace, each).id for each in models.values()} == {models["aligned"].id}


def test_a_lineage_with_a_hole_ends_there(workspace: Workspace) -> None:
    models = make_models(workspace)
    workspace.remove(models["instructed"])
    assert [each.id for each in ancestors(workspace, models["aligned"])] == [models["aligned"].id]
