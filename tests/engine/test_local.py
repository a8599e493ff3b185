import dataclasses
from collections.abc import Iterator

import pytest
import torch

import tiny
from ownlm.data.message import Message
from ownlm.engine.local import LocalModel
from ownlm.engine.request import Event, Finished, LanguageModel, SamplingParams, TextDelta
from ownlm.runtime.errors import ContextOverflow, OwnLMError

GREEDY = SamplingParams(max_tokens=30, temperature=0)
CHANCE = SamplingParams(max_tokens=30, temperature=1.0, seed=5)
PROMPTS = ["def", "The quick brown fox jumps", "", "for index in range(10):\r\n    print(", "日本"]


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return tiny.model()


def silent(model: LocalModel, forbidden: list[int]) -> LocalModel:
    """The model without a chance to choose these tokens."""
    plain = model._logits

    def without(hidden: torch.Tensor) -> torch.Tensor:
        logits = plain(hidden).clone()
        logits[:, forbidden] = -torch.inf
        return logits

    model._logits = without  # type: ignore[method-assign]
    return model


@pytest.fixture
def endless() -> LocalModel:
    """A model that never ends its answer by itself."""
    tokenizer = tiny.tokenizer()
    return silent(tiny.model(), list(tokenizer.special.values()))


def scripted(*tokens: int) -> LocalModel:
    """A model that says these tokens, whatever it is asked."""
    model = tiny.model()
    left = iter(tokens)

    def next_one(hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(left)]), model.tokenizer.vocab_size).float() * 100

    model._logits = next_one  # type: ignore[method-assign]
    return model


def told(events: Iterator[Event]) -> tuple[list[str], Finished]:
    *deltas, last = events
    assert isinstance(last, Finished) and all(isinstance(each, TextDelta) for each in deltas)
    return [each.text for each in deltas if isinstance(each, TextDelta) and each.text], last


def test_it_is_a_language_model(model: LocalModel) -> None:
    assert isinstance(model, LanguageModel)
    assert model.facts.context == 64


def test_an_answer_is_what_a_plain_loop_without_a_cache_gives(model: LocalModel) -> None:
    for prompt in PROMPTS:
        ids, answer = model.encode(prompt), []
        with torch.no_grad():
            for _ in range(30):
                token = int(model.decoder(torch.tensor([ids]))[0, -1].argmax())
                if token in (model.tokenizer.end_of_turn, model.tokenizer.end_of_text):
                    break
                ids.append(token)
                answer.append(token)
        assert model.generate([prompt], GREEDY)[0].token_ids == tuple(answer)


@pytest.mark.parametrize("params", [GREEDY, CHANCE], ids=["greedy", "chance"])
def test_a_batch_gives_what_each_prompt_gives_alone(model: LocalModel, params: SamplingParams) -> None:
    params = dataclasses.replace(params, max_tokens=60)
    together = model.generate(PROMPTS, params)
    if params.temperature == 0:
        alone = [model.generate([prompt], params)[0] for prompt in PROMPTS]
        assert together == alone
    assert together == model.generate(PROMPTS, params)
    # The last prompts' draws do not change when the others are other ones.
    changed = model.generate(["x", *PROMPTS[1:]], params)
    assert changed[1:] == together[1:]
    assert len({len(answer.token_ids) for answer in together}) > 1, "some answers must end before others"


def test_more_prompts_than_rows_come_back_in_their_order(model: LocalModel) -> None:
    params = SamplingParams(max_tokens=2, temperature=0)
    prompts = [[i % 300, i % 7] for i in range(150)]
    answers = model.generate(prompts, params)
    for i in (0, 63, 64, 149):
        assert answers[i] == model.generate([prompts[i]], params)[0]
    assert model.generate([], params) == []


def test_seeds_make_answers_repeatable(model: LocalModel) -> None:
    one, same, other = (
        model.generate(["def"] * 4, SamplingParams(max_tokens=20, temperature=1.5, seed=seed)) for seed in (1, 1, 2)
    )
    assert one == same != other
    assert len({answer.token_ids for answer in one}) > 1, "each answer has a chance of its own"
    unseeded = SamplingParams(max_tokens=20, temperature=1.5)
    assert model.generate(["def"] * 4, unseeded) != model.generate(["def"] * 4, unseeded)


@pytest.mark.parametrize("seed", range(6))
def test_streamed_pieces_join_to_the_whole_answer(model: LocalModel, seed: int) -> None:
    params = SamplingParams(max_tokens=40, temperature=2.0, seed=seed, logprobs=2)
    pieces, last = told(model.stream("def", params))
    (whole,) = model.generate(["def"], params)
    assert "".join(pieces) == whole.text == model.tokenizer.decode(whole.token_ids)
    assert (last.reason, last.usage) == (whole.reason, whole.usage)
    streamed = [
        each for event in model.stream("def", params) if isinstance(event, TextDelta) for each in event.logprobs
    ]
    assert tuple(streamed) == whole.logprobs and len(streamed) == len(whole.token_ids)


def test_pieces_are_whole_characters() -> None:
    text = "日本🙂é"
    tokenizer = tiny.tokenizer()
    single = [token for byte in text.encode() for token in tokenizer.encode_bytes(bytes([byte]))]
    assert len(single) == len(text.encode())
    pieces, last = told(scripted(*single, tokenizer.end_of_turn).stream("x", GREEDY))
    assert pieces == list(text) and last.reason == "stop"
    # Cut off inside a character: said, not hidden.
    cut, last = told(scripted(*single).stream("x", SamplingParams(max_tokens=2, temperature=0)))
    assert (cut, last.reason) == (["\ufffd"], "length")


def test_a_stop_string_across_token_borders_is_not_in_the_answer() -> None:
    tokenizer = tiny.tokenizer()
    tokens = [token for character in "one STOP two" for token in tokenizer.encode(character)]
    stop = SamplingParams(max_tokens=30, temperature=0, stop=("STOP", "two"))
    pieces, last = told(scripted(*tokens).stream("x", stop))
    assert "".join(pieces) == "one " and last.reason == "stop"
    assert scripted(*tokens).generate(["x"], stop)[0].text == "one "
    # A beginning that comes to nothing is given out after all.
    (answer,) = scripted(*tokens[:6], tokenizer.end_of_text).generate(["x"], stop)
    assert (answer.text, answer.reason, len(answer.token_ids)) == ("one ST", "stop", 6)


def test_end_tokens_end_the_answer_and_are_not_in_it() -> None:
    tokenizer = tiny.tokenizer()
    for end in (tokenizer.end_of_turn, tokenizer.end_of_text):
        (answer,) = scripted(*tokenizer.encode("ok"), end).generate(["x"], GREEDY)
        assert (answer.text, answer.reason) == ("ok", "stop")
        assert answer.usage.completion_tokens == len(answer.token_ids) == len(tokenizer.encode("ok"))


def test_a_prompt_that_does_not_fit_names_both_lengths(model: LocalModel) -> None:
    ids = [5] * 64
    for start in (lambda: model.stream(ids, GREEDY), lambda: model.generate([[1], ids], GREEDY)):
        with pytest.raises(ContextOverflow, match=r"64 tokens, but this model's context holds 64") as caught:
            start()
        assert (caught.value.prompt_tokens, caught.value.context) == (64, 64)


def test_an_answer_ends_with_length_at_the_contexts_end(endless: LocalModel) -> None:
    many = SamplingParams(max_tokens=1000, temperature=0)
    for size in (1, 30, 63):
        pieces, last = told(endless.stream([5] * size, many))
        assert last.reason == "length" and last.usage.completion_tokens == 64 - size and pieces
    short, long = endless.generate([[5], [5] * 60], many)
    assert (len(short.token_ids), len(long.token_ids)) == (63, 4)
    assert long == endless.generate([[5] * 60], many)[0]
    assert short.reason == long.reason == "length"
    three = endless.generate([[5]], SamplingParams(max_tokens=3, temperature=0))[0]
    assert (len(three.token_ids), three.reason) == (3, "length")


def test_logprobs_are_those_of_the_scores(endless: LocalModel) -> None:
    params = SamplingParams(max_tokens=10, temperature=1.0, seed=3, logprobs=4)
    prompts: list[list[int]] = [endless.encode("def add("), endless.encode("日本")]
    for prompt, answer in zip(prompts, endless.generate(prompts, params)):
        ids = [*prompt, *answer.token_ids]
        with torch.no_grad():
            logits = endless.decoder(torch.tensor([ids]))[0, len(prompt) - 1 : -1]
            logits[:, list(endless.tokenizer.special.values())] = -torch.inf
            expected = logits.log_softmax(-1)
        assert len(answer.logprobs) == 10
        for place, (token, found) in enumerate(zip(answer.token_ids, answer.logprobs)):
            assert found.logprob == pytest.approx(float(expected[place, token]), abs=1e-3)
            assert found.token_bytes == endless.tokenizer.token_bytes(token)
            best = expected[place].topk(4)
            assert [value for *_, value in found.top] == pytest.approx(best.values.tolist(), abs=1e-3)
            assert [name for name, *_ in found.top] == [endless.tokenizer.decode([i]) for i in best.indices.tolist()]


def test_penalties_count_each_rows_own_tokens(endless: LocalModel) -> None:
    never_twice = SamplingParams(max_tokens=30, temperature=0, repetition_penalty=10.0, presence_penalty=2.0)
    together = endless.generate(PROMPTS, never_twice)
    assert together == [endless.generate([prompt], never_twice)[0] for prompt in PROMPTS]
    assert together[0].token_ids != endless.generate(PROMPTS[:1], GREEDY)[0].token_ids
    plain = sum(len(set(answer.token_ids)) for answer in endless.generate(PROMPTS, GREEDY))
    assert sum(len(set(answer.token_ids)) for answer in together) > plain


def test_closing_a_stream_early_frees_the_model(endless: LocalModel) -> None:
    stream = endless.stream("def", GREEDY)
    assert isinstance(next(stream), TextDelta) and endless._lock.locked()
    stream.close()  # type: ignore[attr-defined]
    assert not endless._lock.locked()
    # A stream that nobody read never took it.
    endless.stream("def", GREEDY).close()  # type: ignore[attr-defined]
    assert endless.generate(["def"], GREEDY)[0].text


@pytest.mark.parametrize("sort", ["bytes of a character", "beginning of a stop string"])
def test_a_stream_can_be_closed_while_no_text_comes(sort: str) -> None:
    tokenizer = tiny.tokenizer()
    tokens = {
        "bytes of a character": tokenizer.encode_bytes("é".encode()[:1]),
        "beginning of a stop string": tokenizer.encode("S"),
    }[sort]
    model = scripted(*tokens)  # a second token would be an error
    stream = model.stream("x", SamplingParams(max_tokens=30, temperature=0, stop=("STOP",)))
    assert isinstance(next(stream), TextDelta) and model._lock.locked()
    stream.close()  # type: ignore[attr-defined]
    assert not model._lock.locked()


def test_each_token_of_a_stream_has_its_logprob_though_it_brings_no_text() -> None:
    tokenizer = tiny.tokenizer()
    tokens = tokenizer.encode_bytes("é".encode()[:1]) * 2
    params = SamplingParams(temperature=0, stop=("STOP",), logprobs=1)
    events = list(scripted(*tokens, *tokenizer.encode("STOP")).stream("x", params))
    found = [each for event in events if isinstance(event, TextDelta) for each in event.logprobs]
    assert len(found) == len(tokens) + len(tokenizer.encode("STOP"))


def test_a_failure_frees_the_model_too() -> None:
    model = scripted()
    with pytest.raises(RuntimeError):
        list(model.stream("def", GREEDY))
    assert not model._lock.locked()


def test_messages_go_through_the_template(model: LocalModel) -> None:
    messages = [Message.of("user", "add?")]
    text = "<|im_start|>user\nadd?<|im_end|>\n<|im_start|>assistant\n"
    assert model.tokenizer.decode(model.encode(messages)) == text
    assert model.count_tokens(messages) == len(model.encode(messages))
    assert model.generate([messages], GREEDY)[0].usage.prompt_tokens == model.count_tokens(messages)


def test_plain_text_follows_an_end_of_text_token(model: LocalModel) -> None:
    assert model.encode("def") == [model.tokenizer.end_of_text, *model.tokenizer.encode("def")]
    assert model.count_tokens("") == 1


@pytest.mark.parametrize("token", [-1, 10_000])
def test_ids_outside_the_vocabulary_are_refused(model: LocalModel, token: int) -> None:
    with pytest.raises(OwnLMError, match=f"token id {token}; ids go from 0 to {model.tokenizer.vocab_size - 1}"):
        model.generate([[1, token]], GREEDY)


def test_rows_of_the_embedding_that_are_no_tokens_are_never_chosen() -> None:
    size = tiny.tokenizer().vocab_size
    model = tiny.model(vocabulary=size + 60)
    with torch.no_grad():
        model.decoder.head[size:] *= 50
    answers = model.generate(PROMPTS, SamplingParams(max_tokens=20, temperature=3.0, seed=1, logprobs=3))
    assert all(token < size for answer in answers for token in answer.token_ids)
    model.generate(PROMPTS, SamplingParams(max_tokens=5, temperature=0, repetition_penalty=1.2))


def test_bfloat16_answers(model: LocalModel) -> None:
    from ownlm.model.kernels import Kernels, use

    narrow = tiny.model()
    use(narrow.decoder, Kernels("bfloat16", "tiled"))
    answers = narrow.generate(PROMPTS, GREEDY)
    assert narrow.generate(PROMPTS, GREEDY) == answers
    assert [answer.usage.prompt_tokens for answer in answers] == [model.count_tokens(prompt) for prompt in PROMPTS]
