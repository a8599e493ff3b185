"""What the model cannot do, said plainly, with its own numbers where there are some."""

from __future__ import annotations

from ownlm.render.html import count, percent, size
from ownlm.report.facts import Facts, dig


def limits(facts: Facts) -> list[str]:
    """Sentences for the page and the card."""
    base, corpus = facts.base, facts.corpus.metrics if facts.corpus else {}
    said = []
    if base.get("parameters"):
        said.append(
            f"It is small: {count(base['parameters'])} parameters, about a ten-thousandth of a large assistant. It "
            "has learned how such texts look and little of what they mean. It does not reason, calculate or know facts."
        )
    if corpus.get("bytes"):
        kinds = " and ".join(sorted(corpus.get("kinds", {}))) or "text"
        said.append(
            f"It has read {size(facts.learned[1])} of {kinds} and nothing else. Far from such text, other languages "
            "included, its answers are guesswork."
        )
    if base.get("context"):
        said.append(f"It sees {base['context']:,} tokens at a time and refuses longer prompts.")
    said.append(
        "It makes up names, arguments and facts with confidence. Read what it writes before you use it, and run no "
        "code of it that you have not read."
    )
    said.append(
        "It may repeat passages of its training text, whose licences are listed here. Look for the origin of what "
        "you publish."
    )
    failing = dig(facts.alignment, "after", "pass_rate", "value")
    if failing is not None:
        said.append(
            f"After alignment {percent(1 - failing, 0)} of its answers to held-out prompts still fail the checks, "
            "and passing them does not mean that an answer is right."
        )
    said.append("It was not tested for safety or bias and is not meant for decisions about people.")
    said.append(
        "All figures come from one run with one seed: intervals cover the choice of documents, prompts and excerpts, "
        "not that of another run."
    )
    return said
