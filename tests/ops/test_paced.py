"""A reading that many look at: taken once for all, no oftener than is good for who is asked."""

import asyncio

import pytest

from syncd.ops.paced import SHARE, Paced


class Source:
    """Counts how often it is read; each reading takes `seconds` of the clock that it moves."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.at, self.readings, self.broken = seconds, 100.0, 0, False
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> int:
        await self.gate.wait()
        self.at += self.seconds
        if self.broken:
            raise OSError("away")
        self.readings += 1
        return self.readings

    def now(self) -> float:
        return self.at


async def test_it_is_read_once_for_all_who_look() -> None:
    source = Source()
    paced = Paced(source.read, 2.0, source.now)
    assert await asyncio.gather(*(paced.get() for _ in range(5))) == [1] * 5
    source.at += 1.9
    assert await paced.get() == 1
    source.at += 0.2
    assert await paced.get() == 2


async def test_one_that_takes_long_is_taken_rarely_and_not_waited_for() -> None:
    source = Source(seconds=3.0)
    paced = Paced(source.read, 2.0, source.now)
    assert await paced.get() == 1, "there is nothing older to show"
    source.at += 3.0 * SHARE - 1
    assert await paced.get() == 1
    assert source.readings == 1
    source.at += 2
    source.gate.clear()
    assert await paced.get() == 1, "it shows the older one at once"
    source.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (source.readings, await paced.get()) == (2, 2)


async def test_what_goes_wrong_is_told_to_who_waits_and_tried_again_by_the_next() -> None:
    source = Source()
    paced = Paced(source.read, 2.0, source.now)
    source.broken = True
    with pytest.raises(OSError, match="away"):
        await paced.get()
    source.broken = False
    assert await paced.get() == 1


async def test_who_gives_up_does_not_end_it_for_the_others() -> None:
    source = Source()
    source.gate.clear()
    paced = Paced(source.read, 2.0, source.now)
    first, second = asyncio.ensure_future(paced.get()), asyncio.ensure_future(paced.get())
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == 1
