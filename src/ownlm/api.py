"""What a program can do: the same as the commands.

model = ownlm.load("first-model")
model.complete("def fibonacci(n):", temperature=0, max_tokens=64)
for piece in model.stream("def fibonacci(n):"):
    print(piece, end="")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlm.data.message import Message
from ownlm.engine.request import LanguageModel, ModelFacts, SamplingParams, TextDelta, TextScore
from ownlm.runtime.errors import OwnLMError, UnsupportedParameter
from ownlm.runtime.progress import Screen
from ownlm.store.workspace import Workspace

if TYPE_CHECKING:
    from ownlm.recipe.runner import RunResult
    from ownlm.store.artifact import Artifact

Conversation = str | Sequence[Message | Mapping[str, Any]]
Place = Workspace | Path | str | None


class Model:
    """A language model, here or elsewhere. Sampling arguments are the fields of `SamplingParams`."""

    def __init__(self, engine: LanguageModel) -> None:
        self._engine = engine

    @property
    def facts(self) -> ModelFacts:
        """Name, id, context length and the like."""
        return self._engine.facts

    def complete(self, text: str, **sampling: Any) -> str:
        """The continuation of `text`, without `text` itself.

        Raises:
            ContextOverflow: the text does not fit the model's context.
            UnsupportedParameter: a sampling argument that does not exist, is out of range or is not honoured.
        """
        return self._engine.generate([text], sampling_params(sampling))[0].text

    def chat(self, conversation: Conversation, **sampling: Any) -> str:
        """The assistant's answer to one question, or to messages such as `{"role": "user", "content": "Hello"}`.

        Raises:
            OwnLMError: a message with an unknown role or content; else as `complete`.
        """
        return self._engine.generate([messages(conversation)], sampling_params(sampling))[0].text

    def stream(self, prompt: str | Sequence[Message | Mapping[str, Any]], **sampling: Any) -> Iterator[str]:
        """Pieces of a continuation (of a string) or of an answer (to messages), as they come.

        Closing the iterator stops the model. Raises as `complete` and `chat`, when the first piece is asked for.
        """
        asked = prompt if isinstance(prompt, str) else messages(prompt)
        events = self._engine.stream(asked, sampling_params(sampling))
        for event in events:
            if isinstance(event, TextDelta) and event.text:
                yield event.text

    def score(self, text: str) -> TextScore:
        """How likely `text` is under the model: log-probabilities in nats, and bits per byte."""
        return self._engine.score([text])[0]


def load(model: str, workspace: Place = None, *, precision: str = "auto", quantize: str | None = None) -> Model:
    """Opens MODEL: the name or id of an artifact, a folder, `hf:org/name`, or `openai:BASE_URL#model`.

    `precision` is "auto", "float32" or "bfloat16"; `quantize` "int8", "int4" or "int4:GROUP".

    Raises:
        ModelNotFound: there is no such model; the message lists what there is.
    """
    from ownlm.engine.open import Weights, open_model

    return Model(open_model(model, _workspace(workspace), Weights(precision, quantize)))


def run(recipe: str | Path, minutes: float | None = None, workspace: Place = None) -> RunResult:
    """Runs a recipe file: builds what is not there yet, resumes what was cut off, reuses the rest.

    Raises:
        RecipeError: the file cannot be understood; the message names line and key.
        BudgetError: `minutes` are too few for anything useful.
    """
    from ownlm.recipe.runner import run as run_recipe
    from ownlm.recipe.schema import load_recipe

    return run_recipe(load_recipe(Path(recipe)), _workspace(workspace), Screen(quiet=True), minutes=minutes)


def evaluate(model: str, suite: str | Path, workspace: Place = None) -> Artifact:
    """Runs a suite (a YAML file) on a model and returns the evaluation; its `results.json` holds the figures."""
    from ownlm.evaluate.run import evaluate as run_suite

    return run_suite(model, Path(suite), _workspace(workspace), Screen(quiet=True))


def import_model(source: str | Path, name: str = "", workspace: Place = None) -> Artifact:
    """Brings in a model as an artifact: `hf:org/name`, a model folder, or a GGUF file.

    Raises:
        ModelNotFound: the hub has no such model, or cannot be reached.
        OwnLMError: what is there cannot be read; nothing is left of it.
    """
    from ownlm.engine.importing import import_model as bring_in

    return bring_in(str(source), _workspace(workspace), Screen(quiet=True), name).artifact


def export_model(
    model: str,
    target: str | Path,
    *,
    to: str = "hf",
    type: str = "f16",
    quantize: str | None = None,
    force: bool = False,
    workspace: Place = None,
) -> tuple[str, ...]:
    """Writes MODEL as a folder that transformers opens (`to="hf"`) or as a GGUF file of a `type` (`to="gguf"`).

    `quantize` ("int8", "int4", "int4:GROUP") writes a folder's matrices in that form.

    Returns:
        Sentences on where llama.cpp does otherwise than OwnLM; usually none.

    Raises:
        OwnLMError: `target` exists (without `force`), or the model cannot be written so that it answers the same.
    """
    from ownlm.engine.exporting import export_folder, export_gguf, exportable

    if to not in ("hf", "gguf"):
        raise OwnLMError(f"to={to!r}: it is 'hf' or 'gguf'.")
    place, screen = _workspace(workspace), Screen(quiet=True)
    found = exportable(model, place)
    if to == "gguf":
        return export_gguf(found, Path(target), type, screen, force).notes
    export_folder(found, Path(target), place, screen, force, quantize)
    return ()


def sampling_params(given: Mapping[str, Any]) -> SamplingParams:
    """`SamplingParams` of keyword arguments; `stop` may be one string.

    Raises:
        UnsupportedParameter: a name that does not exist (the nearest is told), or a value out of range.
    """
    known = [field.name for field in fields(SamplingParams)]
    for name in given:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f" Did you mean '{nearest[0]}'?" if nearest else f" There is: {', '.join(known)}."
            raise UnsupportedParameter(name, f"There is no sampling parameter '{name}'.{hint}")
    values = dict(given)
    if "stop" in values:
        stop = values["stop"]
        values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return SamplingParams(**values)


def messages(conversation: Conversation) -> list[Message]:
    """One question, or messages in either form, as `Message`s.

    Raises:
        OwnLMError: an unknown role or content part; the message tells which.
    """
    if isinstance(conversation, str):
        return [Message.of("user", conversation)]
    found = []
    for index, each in enumerate(conversation):
        try:
            found.append(each if isinstance(each, Message) else Message.from_json(dict(each)))
        except ValueError as error:
            raise OwnLMError(f"Message {index} cannot be read: {error}.") from error
    return found


def _workspace(place: Place) -> Workspace:
    return place if isinstance(place, Workspace) else Workspace(place)
