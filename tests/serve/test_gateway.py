"""Turns, and the bridge between threads and the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from ownlm.engine.request import Finished, LanguageModel, SamplingParams, TextDelta
from ownlm.runtime.errors import ContextOverflow, ModelNotFound
from ownlm.serve.gateway import Gateway
from ownlm.serve.models import ModelSet
from ownlm.serve.turns import ServerBusy, Turns
from ownlm.store.workspace import Workspace
from server_types import Clock


def gateway_of(clock: Clock, workspace: Workspace, max_waiting: int = 64) -> Gateway:
    return Gateway(ModelSet(["clock"], workspace, lambda name, _: clock), max_waiting)


def test_a_stream_of_events(workspace: Workspace) -> None:
    async def main() -> list[object]:
        gateway = gateway_of(Clock(words=2), workspace)
        return [event async for event in gateway.stream("clock", "a b", SamplingParams())]

    first, second, end = asyncio.run(main())
    assert (first, second) == (TextDelta("w0 "), TextDelta("w1 "))
    assert isinstance(end, Finished)


def test_closing_stops_the_model(workspace: Workspace) -> None:
    clock = Clock(words=1000, context=2000, pause=0.01)

    async def main() -> str:
        gateway = gateway_of(clock, workspace)
        async with aclosing(gateway.stream("clock", "a", SamplingParams(max_tokens=1000))) as events:
            async for _ in events:
                break
        return await gateway.call("clock", lambda model: model.facts.name)

    assert asyncio.run(main()) == "clock"
    assert clock.closed.is_set()
    assert clock.steps < 50


def test_errors_come_through(workspace: Workspace) -> None:
    async def main() -> None:
        gateway = gateway_of(Clock(context=3), workspace)
        with pytest.raises(ContextOverflow):
            await anext(gateway.stream("clock", "a b c d", SamplingParams()))
        with pytest.raises(ModelNotFound):
            await gateway.call("parrot", lambda model: model.facts)
        with pytest.raises(ZeroDivisionError):
            await gateway.call("clock", lambda model: 1 / 0)
        assert await gateway.call("clock", lambda model: 1) == 1

    asyncio.run(main())


def test_the_line_is_bounded_and_fair(workspace: Workspace) -> None:
    go, order = threading.Event(), list[int]()

    def work(number: int) -> Iterator[int]:
        go.wait(5)
        order.append(number)
        yield number

    async def main() -> None:
        gateway = gateway_of(Clock(), workspace, max_waiting=3)

        async def ask(number: int) -> None:
            def iterate(_: LanguageModel) -> Iterator[int]:
                return work(number)

            run = await gateway.run("clock", iterate)
            assert [item async for item in run] == [number]

        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(ask(number)))
            await asyncio.sleep(0.01)
        assert gateway.waiting() == {"clock": 3}
        with pytest.raises(ServerBusy):
            await gateway.call("clock", lambda model: None)
        tasks[2].cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert order == [0, 1, 3]


def test_a_turn_given_up_is_not_lost() -> None:
    async def main() -> None:
        turns = Turns(2)
        await turns.take()
        waiting = asyncio.create_task(turns.take())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert turns.waiting == 0
        turns.give_back()
        await asyncio.wait_for(turns.take(), 1)

    asyncio.run(main())
