"""Where a model came from: a hub, a folder or a GGUF file, its revision, licence and the SHA-256 of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ownlm.data.licence import UNKNOWN, from_folder, from_name
from ownlm.store.artifact import sha256_of

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Licence:
    """`name` as SPDX has it where it is one of those, else as the model's makers wrote it; `stated_in` is the place."""

    name: str = UNKNOWN
    stated_in: str = ""
    link: str = ""


@dataclass(frozen=True)
class Origin:
    """`source` is what was asked for, `revision` the hub's commit; `files` maps names to SHA-256s."""

    source: str
    revision: str = ""
    licence: Licence = Licence()
    files: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What an artifact records of it."""
        return {
            "source": self.source,
            "revision": self.revision,
            "licence": self.licence.name,
            "licence_stated_in": self.licence.stated_in,
            "licence_link": self.licence.link,
            "files": dict(self.files),
        }


def licence_of(folder: Path) -> Licence:
    """What a model folder says about its licence: the card's front matter first, then a LICENSE file."""
    card = front_matter(folder / "README.md")
    stated = card.get("license")
    if isinstance(stated, list) and len(stated) == 1:
        stated = stated[0]
    if isinstance(stated, str) and stated.strip():
        name = str(card.get("license_name") or stated) if stated == "other" else stated
        return Licence(named(name), "README.md", str(card.get("license_link") or ""))
    found = from_folder(folder)
    return Licence(found, "LICENSE") if found != UNKNOWN else Licence()


def named(licence: str) -> str:
    """The SPDX form of a licence's name, or the name itself: many models have licences of their own."""
    found = from_name(licence)
    return licence.strip() if found == UNKNOWN else found


def front_matter(path: Path) -> dict[str, Any]:
    """The YAML block at the beginning of a model card; empty where there is none that can be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _FRONT_MATTER.match(file.read(200_000))
        data = yaml.safe_load(found[1]) if found else {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def digest(path: Path) -> str:
    """The SHA-256 of a file; the hub's cache names large files by it, which saves reading them."""
    blob = path.resolve()
    return blob.name if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) else sha256_of(path)
