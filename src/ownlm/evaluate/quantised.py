"""What quantising costs: bits per byte on a held-out text, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ownlm.data.corpus import read_documents
from ownlm.runtime.errors import ArtifactDamaged, ArtifactNotFound, OwnLMError
from ownlm.store.artifact import Artifact
from ownlm.store.workspace import Workspace


@dataclass(frozen=True)
class Precision:
    """One form of a model: `scheme` ("as stored", "int8", "int4:64", ...), its bits per byte, and its bytes in memory.

    `worse` is the share by which its bits per byte are above those of the model as stored.
    """

    scheme: str
    bits_per_byte: float
    worse: float
    bytes: int


def compare(
    folder: Path, texts: Sequence[str], schemes: Sequence[str] = ("int8", "int4"), precision: str = "float32"
) -> list[Precision]:
    """The model of a folder as it is stored and quantised by each of `schemes`, one after the other, on `texts`.

    `precision` is that of the activations, for all of them, so that nothing but the weights differs.

    Raises:
        OwnLMError: there is no text, the folder holds no model, or one that is quantised already; no such scheme.
    """
    from ownlm.engine.open import Weights, open_folder
    from ownlm.model.quantised import Scheme

    texts = [text for text in texts if text]
    if not texts:
        raise OwnLMError("Comparing precisions needs a held-out text; there is none.")
    forms: list[tuple[str, str | None]] = [("as stored", None)]
    forms += [(str(Scheme.parse(scheme)), scheme) for scheme in schemes]
    found: list[Precision] = []
    for name, scheme in forms:
        model = open_folder(folder, folder.name, weights=Weights(precision, scheme))
        scores = model.score(texts)
        nats = -sum(sum(score.token_logprobs) for score in scores)
        bits = nats / math.log(2) / sum(score.bytes for score in scores)
        held = sum(tensor.nbytes for tensor in model.decoder.state_dict().values())
        found.append(Precision(name, bits, bits / found[0].bits_per_byte - 1 if found else 0.0, held))
        del model
    return found


def heldout_texts(artifact: Artifact | None, workspace: Workspace, limit: int = 200_000) -> list[str]:
    """Held-out documents of the corpus that a model here was made from, about `limit` characters in all."""
    corpus = _corpus(artifact, workspace)
    if corpus is None:
        return []
    documents = sorted(read_documents(corpus.path, "heldout"), key=lambda document: document.sha256)
    texts: list[str] = []
    for document in documents:
        texts.append(document.text[: max(0, limit - sum(map(len, texts)))])
    return [text for text in texts if text]


def _corpus(artifact: Artifact | None, workspace: Workspace) -> Artifact | None:
    """The nearest corpus among what an artifact was made from."""
    if artifact is None or artifact.kind == "corpus":
        return artifact
    for identifier in artifact.inputs.values():
        try:
            found = _corpus(workspace.by_id(identifier), workspace)
        except (ArtifactNotFound, ArtifactDamaged):
            continue
        if found is not None:
            return found
    return None
