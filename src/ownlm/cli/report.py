"""`ownlm report`: one page about a model."""

from __future__ import annotations

from ownlm.cli.common import OwnModelArgument, verb, workspace
from ownlm.runtime.progress import Screen


@verb
def command(screen: Screen, model: OwnModelArgument) -> None:
    """Write the report and the model card of a model: lineage, data, licences, curves, samples, limits."""
    from ownlm.report.build import build_report

    place = workspace()
    report = build_report(place.resolve(model, ("model",)), place)
    screen.say(f"The report of {model} lies in {report.path}:")
    for name in report.files:
        screen.detail(str(report.path / name))
    screen.next(f"ownlm serve {model}", "the API and the Studio")
    screen.result({"id": report.id, "path": str(report.path), "files": list(report.files)})
