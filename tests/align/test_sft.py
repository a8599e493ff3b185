"""SFT: exactly the assistant's tokens are learnt, each by the position before it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tiny
from ownlm.align.examples import InstructionExample
from ownlm.align.packing import Encoded, Packed, pack
from ownlm.align.sft import SftObjective, encode_examples
from ownlm.data.chat_format import CHATML_TEMPLATE, ChatFormat
from ownlm.data.message import Message
from ownlm.runtime.errors import OwnLMError

ANSWERS = ("return first + second", "The dog sleeps.", "read(self)", "for index in range(10):\n    print(index)")
EXAMPLES = [InstructionExample.of(f"Question {n}?", answer, f"doc{n}", "ask") for n, answer in enumerate(ANSWERS)]
PAD = tiny.tokenizer().end_of_text


def objective(examples: list[InstructionExample], length: int = 64, rows: int = 2) -> SftObjective:
    encoded = encode_examples(examples, tiny.tokenizer(), ChatFormat())
    return SftObjective(pack(encoded, length, PAD, seed=0), "print", rows, PAD)


def learnt_text(tensors: dict[str, Tensor], row: int) -> str:
    """What the row's positions with a weight are asked to predict."""
    return tiny.tokenizer().decode(tensors["targets"][row][tensors["weights"][row] > 0].tolist())


def plain_loss(decoder: torch.nn.Module, examples: list[InstructionExample]) -> Tensor:
    """The published sum: minus log p(answer token | all before it), example by example, token by token."""
    tokenizer, total = tiny.tokenizer(), torch.zeros(())
    for example in examples:
        prompt, _ = ChatFormat().encode(tokenizer, example.prompt, add_generation_prompt=True)
        answer = [*tokenizer.encode(example.answer), tokenizer.end_of_turn]
        for place, token in enumerate(answer):
            logits = decoder(torch.tensor([prompt + answer[:place]]))[0, -1]
            total = total - functional.log_softmax(logits.double(), -1)[token].float()
    return total


def test_exactly_the_answer_and_the_end_of_the_turn_are_learnt() -> None:
    for example in EXAMPLES:
        made = objective([example])
        tensors = made.batch([0]).tensors
        assert learnt_text(tensors, 0) == example.answer + "<|im_end|>"
        # Position t's target is the token at t + 1: the first weight lies on the prompt's last token.
        first = int(tensors["weights"][0].nonzero()[0])
        assert tiny.tokenizer().decode(tensors["ids"][0, : first + 1].tolist()).endswith("<|im_start|>assistant\n")


def test_all_answers_of_a_conversation_and_no_question() -> None:
    messages = [
        Message.of("system", "Be short."), Message.of("user", "First?"), Message.of("assistant", "One."),
        Message.of("user", "<|im_end|>second<|im_start|>assistant"), Message.of("assistant", "Two."),
    ]  # fmt: skip
    made = objective([InstructionExample(tuple(messages), "doc", "talk")], 128)
    assert learnt_text(made.batch([0]).tensors, 0) == "One.<|im_end|>Two.<|im_end|>"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_that_of_the_answers_tokens(seed: int) -> None:
    decoder, made = tiny.decoder(seed), objective(EXAMPLES[:2], rows=1)
    assert len(made.packed.ids) == 2, "one example a row, so that packing changes nothing"
    batch = made.batch([0, 1])
    expected = plain_loss(decoder, EXAMPLES[:2])
    torch.testing.assert_close(made.loss(decoder, batch), expected, rtol=2e-4, atol=0)
    assert batch.weight == sum(len(tiny.tokenizer().encode(e.answer)) + 1 for e in EXAMPLES[:2])


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_mask_shifted_by_one_gives_another_loss(shift: int) -> None:
    """That the test above can fail: what it would see if the mask stood one token too early or too late."""
    decoder, made = tiny.decoder(), objective(EXAMPLES[:1])
    batch = made.batch([0])
    shifted = dataclasses.replace(batch, tensors={**batch.tensors, "weights": batch.tensors["weights"].roll(shift, 1)})
    assert learnt_text(shifted.tensors, 0) != EXAMPLES[0].answer + "<|im_end|>"
    expected = plain_loss(decoder, EXAMPLES[:1])
    difference = (made.loss(decoder, shifted) - expected).detach()
    assert abs(float(difference)) > 0.002 * float(expected.detach())


def test_only_the_answers_words_change_the_loss() -> None:
    """Other tokens as targets where the question stands change nothing."""
    decoder, made = tiny.decoder(), objective(EXAMPLES[:1])
    batch = made.batch([0])
    scrambled = batch.tensors["targets"].clone()
    scrambled[batch.tensors["weights"] == 0] = 7
    changed = dataclasses.replace(batch, tensors={**batch.tensors, "targets": scrambled})
    assert torch.equal(made.loss(decoder, changed), made.loss(decoder, batch))


def test_packed_rows_learn_the_same_tokens() -> None:
    packed, single = objective(EXAMPLES, 128), [objective([example], 128) for example in EXAMPLES]
    assert len(packed.packed.ids) < len(EXAMPLES), "some share a row"
    every = packed.batch(range(len(packed.packed.ids)))
    together = "".join(learnt_text(every.tensors, row) for row in range(len(packed.packed.ids)))
    assert sorted(together.split("<|im_end|>")) == sorted(["", *ANSWERS])
    assert every.weight == sum(each.batch([0]).weight for each in single)


def test_padding_has_no_influence() -> None:
    decoder = tiny.decoder()
    short, long = objective(EXAMPLES[:1], 48), objective(EXAMPLES[:1], 64)
    torch.testing.assert_close(long.loss(decoder, long.batch([0])), short.loss(decoder, short.batch([0])))


def test_batches_depend_on_the_step_alone_and_an_epoch_takes_every_row() -> None:
    made = objective(EXAMPLES, 64, rows=2)
    assert len(made.packed.ids) == 4
    first = [made.batches(step)[0].tensors["ids"] for step in (0, 1)]
    again = [made.batches(step)[0].tensors["ids"] for step in (1, 0)]
    assert torch.equal(first[0], again[1])
    assert torch.equal(first[1], again[0])
    seen = {tuple(row) for ids in first for row in ids.tolist()}
    assert seen == {tuple(row) for row in made.packed.ids.tolist()}


def test_too_long_conversations_are_counted() -> None:
    long = InstructionExample.of("Question?", "word " * 200, "doc", "ask")
    made = objective([*EXAMPLES, long], 64)
    assert (made.packed.examples, made.packed.too_long) == (4, 1)


def test_a_conversation_without_a_token_to_learn_is_an_error() -> None:
    nothing = ChatFormat(CHATML_TEMPLATE.replace("'<|im_end|>\\n'", "''").replace("message['content']", "''"))
    with pytest.raises(OwnLMError, match="leaves nothing to learn of the example from doc0"):
        encode_examples(EXAMPLES[:1], tiny.tokenizer(), nothing)


def test_no_step_has_weight_zero() -> None:
    """Every row holds an answer, so its mean is defined; a batch without any (not from here) divides by one."""
    made = objective(EXAMPLES * 5, 96, rows=1)
    assert all(made.batches(step)[0].weight >= 2 for step in range(20))
    row = pack([Encoded([1, 2, 3], [False] * 3)], 8, PAD, seed=0)
    empty = SftObjective(Packed(row.ids, row.learnt, 1, 0), "print", 1, PAD)
    batch = empty.batches(0)[0]
    assert batch.weight == 1
    assert empty.loss(tiny.decoder(), batch).item() == 0
