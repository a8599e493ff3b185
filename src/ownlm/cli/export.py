"""`ownlm export`: a model for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ownlm.cli.common import ModelArgument, existing_file, size_text, verb, workspace
from ownlm.runtime.errors import OwnLMError
from ownlm.runtime.progress import Screen


class Form(StrEnum):
    """What `--to` takes."""

    HF = "hf"
    GGUF = "gguf"


@verb
def command(
    screen: Screen,
    model: ModelArgument,
    target: Annotated[Path, typer.Argument(metavar="DEST", help="A folder for hf, a file for gguf.")],
    to: Annotated[
        Form, typer.Option(help="hf: the folder that transformers and vLLM open; gguf: the file of llama.cpp.")
    ],
    file_type: Annotated[
        str | None, typer.Option("--type", help="Of a gguf file: f32, f16 (the default), bf16, q8_0 or q4_0.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="Of a folder: write the matrices in int8, int4, or int4:32, :64, :128.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="A held-out text to tell what --quantize costs; else the model's own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write a model for other programs, tokenizer and chat template included: there it answers the same."""
    from ownlm.engine.exporting import export_folder, exportable

    if to is Form.HF and file_type is not None:
        raise OwnLMError("--type belongs to --to gguf; a folder keeps the precision of the model's weights.")
    if text is not None:
        existing_file(text, "a held-out text")
    if to is Form.GGUF and quantize is not None:
        raise OwnLMError("--quantize belongs to --to hf; a GGUF file is quantised by its --type (q8_0, q4_0).")
    place = workspace()
    found = exportable(model, place)
    if to is Form.GGUF:
        _gguf(screen, found, target, file_type or "f16", force)
        return
    export_folder(found, target, place, screen, force, quantize)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    screen.say(f"{model} lies in {target}: {len(files)} files, {size_text(sum(p.stat().st_size for p in files))}.")
    screen.detail(_openers(target, quantize))
    costs = [] if quantize is None else _costs(screen, found, text, quantize)
    screen.next(f"ownlm chat {target}", "the exported folder, as others open it")
    names = [path.relative_to(target).as_posix() for path in files]
    screen.result({"model": model, "to": "hf", "path": str(target), "files": names, "bits_per_byte": costs})


def _costs(screen: Screen, model: Any, text: Path | None, quantize: str) -> list[dict[str, Any]]:
    """Bits per byte of a held-out text before and after, where there is one."""
    from dataclasses import asdict

    from ownlm.evaluate.quantised import compare, heldout_texts

    texts = [text.read_text("utf-8")] if text is not None else heldout_texts(model.artifact, workspace())
    if not texts:
        screen.say("What quantising costs is not known: there is no held-out text here; --text FILE gives one.")
        return []
    rows = compare(model.folder, texts, [quantize])
    screen.table(
        ["weights", "bits per byte", "worse by", "in memory"],
        [[each.scheme, f"{each.bits_per_byte:.4f}", f"{each.worse:.2%}", size_text(each.bytes)] for each in rows],
    )
    return [asdict(each) for each in rows]


def _openers(target: Path, quantize: str | None) -> str:
    """How others open the folder."""
    needs = "" if quantize is None else " (both read the format compressed-tensors, which is a package of its own)"
    return f'transformers: AutoModelForCausalLM.from_pretrained("{target}")\nvLLM: vllm serve {target}{needs}'


def _gguf(screen: Screen, model: Any, target: Path, file_type: str, force: bool) -> None:
    from ownlm.engine.exporting import export_gguf

    written = export_gguf(model, target, file_type, screen, force)
    counts = ", ".join(f"{count} {kind}" for kind, count in written.tensors.items())
    screen.say(f"{target} holds {model.name}: {size_text(written.bytes)}, a context of {written.context:,} tokens.")
    for note in written.notes:
        screen.warn(note)
    screen.detail(
        f"Tensors: {counts}\n"
        f"llama.cpp: llama-cli -m {target}\n"
        f"Ollama: ollama create {model.name} -f Modelfile, where Modelfile is a text file with the line\n"
        f"        FROM {target.resolve()}"
    )
    screen.next(f"llama-server -m {target}", "llama.cpp's own server; its API is OpenAI's")
    screen.result({
        "model": model.name, "to": "gguf", "path": str(target), "type": file_type, "bytes": written.bytes,
        "context": written.context, "tensors": written.tensors, "notes": written.notes,
    })  # fmt: skip
