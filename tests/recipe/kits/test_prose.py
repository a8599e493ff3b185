"""The kit for prose: sections, continuations, its verifier and gold score."""

from __future__ import annotations

from ownlm.data.document import Document
from ownlm.data.message import TextPart
from ownlm.recipe.kits.prose import CONTINUE, SECTION, kit, sections
from ownlm.recipe.kits.text import loops, opening, sentences, verify_words

NOTES = """\
# Garden plan

The garden has two beds along the wall. Tomatoes grow in the first one, and beans
climb in the second. Water them every evening.

```
the garden in code
```

- the garden in a list

Compost
-------

Turn the **compost** once a month, as [this page](http://example.org) says about compost. It needs air and some water
to stay warm. For example:

## Empty

## Other matters

Nothing said here shares a word with its title at all.
"""


def document(text: str = NOTES) -> Document:
    return Document("notes:garden.md", "notes:garden", "unknown", "prose", "md", (TextPart(text),))


def test_sections() -> None:
    found = sections(NOTES)
    assert [section.heading for section in found] == ["", "Garden plan", "Compost", "Empty", "Other matters"]
    assert found[1].paragraphs[0].startswith("The garden has two beds")
    assert len(found[1].paragraphs) == 1
    assert found[2].paragraphs[0].startswith("Turn the compost once a month, as this page says")


def test_examples() -> None:
    examples = list(kit.examples(document()))
    starts = [example.prompt[0].text.rpartition(": ")[2] for example in examples if example.task == CONTINUE]
    assert starts == [
        "The garden has two beds along the wall.",
        "Turn the compost once a month, as this page says about compost.",
    ]
    headings = [example.prompt[0].text for example in examples if example.task == SECTION]
    assert len(headings) == 2
    assert "Garden plan" in headings[0]
    assert "Compost" in headings[1]
    assert examples == list(kit.examples(document()))
    assert not any("For example" in example.answer or "code" in example.answer for example in examples)


def test_the_true_answers_pass_and_score_one() -> None:
    for example in kit.examples(document()):
        assert kit.gold(example, example.answer) == 1.0
        assert kit.gold(example, "") == 0.0
        if example.task == SECTION:
            assert kit.verify(example, example.answer, True).passed


def test_which_check_fails() -> None:
    good = "The garden grows along the old wall."
    assert verify_words("Tell me about the garden.", good, True).passed
    assert verify_words("Tell me about the garden.", good, False).reasons == ("ends",)
    assert verify_words("Tell me about the garden.", "A garden.", True).reasons == ("length",)
    assert verify_words("Tell me about the garden.", "Cars drive along the old road.", True).reasons == ("on_topic",)
    looping = "the garden is a place with many trees and " * 5
    assert verify_words("Tell me about the garden.", looping, True).reasons == ("no_loop",)
    assert verify_words("Tell me about the garden.", "", True).reasons == ("length", "on_topic")


def test_loops() -> None:
    assert loops("one two three four five six seven eight " * 3)
    assert loops("no " * 20)
    assert not loops("one two three four five six seven eight " * 2)
    assert not loops("a b a c a d")


def test_sentences_and_openings() -> None:
    text = "It is, e.g. An example. Mr. Smith\nsaw it! Did he? (Yes.) Then: nothing"
    assert sentences(text) == ["It is, e.g. An example.", "Mr. Smith saw it!", "Did he?", "(Yes.)", "Then: nothing"]
    assert opening(text, 45) == "It is, e.g. An example. Mr. Smith saw it!"
    assert opening(text, 500).endswith("(Yes.)")
    assert opening(text, 5) == ""


def test_strange_documents_give_nothing() -> None:
    for text in ("", "\n\n", "#", "# \n", "***\n", "```\nopen", "word " * 10_000, "a.\n" * 2_000, "=" * 10_000):
        assert len(list(kit.examples(document(text)))) < 3


def test_code_of_languages_that_no_kit_knows() -> None:
    block = (
        "fn area(shape: &Shape) -> f64 {\n    let width = shape.width();\n    let height = 2;\n    width * height\n}"
    )
    rust = Document("a:b.rs", "a", "MIT", "code", "rs", (TextPart(f"use std::fmt;\n\n{block}\n\n{{\n}}\n"),))
    [example] = kit.examples(rust)
    assert example.task == CONTINUE
    assert block.startswith(example.prompt[0].text.split("```\n")[1].removesuffix("```"))
    assert example.answer == "```\n    let height = 2;\n    width * height\n}\n```"
    assert kit.verify(example, example.answer, True).passed
