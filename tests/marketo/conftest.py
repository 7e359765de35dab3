from collections.abc import AsyncIterator

import pytest

from tests.marketo.wire import Wire, serving


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving() as server:
        yield server
