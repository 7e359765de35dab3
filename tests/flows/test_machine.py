"""Any interleaving of changes, late commits, crashes, faults, foreign jobs and operators: every change ends in exactly one known state.

A failure prints the plan that it was shrunk to: paste it as an `@example`. `--hypothesis-seed=N` repeats a whole run of plans, and
what `print_blob` prints repeats one of them.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from structlog.testing import capture_logs

from syncd.store.embedded import EmbeddedPostgres
from syncd.store.leases import Pool
from syncd.store.pool import create_pool
from tests.conftest import TEMPLATE, clone
from tests.flows.machine.plans import Plan, plans
from tests.flows.machine.world import World

ActOut = Callable[[Plan], None]
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]  # not `explain`: its tracing makes every plan slower


@pytest.fixture(scope="module")
def act_out(postgres: EmbeddedPostgres) -> Iterator[ActOut]:
    """Acts out plans one after the other, in one database, on one loop."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()

    async def opened() -> Pool:
        database = await stack.enter_async_context(clone(postgres, TEMPLATE))
        pool = await create_pool(database, application_name="syncd tests", min_size=1, max_size=8)
        stack.push_async_callback(pool.close)
        return pool

    pool = loop.run_until_complete(opened())
    yield lambda plan: loop.run_until_complete(_act_out(pool, plan))
    loop.run_until_complete(stack.aclose())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def _act_out(pool: Pool, plan: Plan) -> None:
    with capture_logs():
        async with World(pool, plan) as world:
            for action in plan.actions:
                await world.act(action)
            await world.come_to_rest()


@settings(max_examples=40, phases=PHASES, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans())
@example(plan=Plan(()))
def test_every_change_ends_in_one_known_state_and_the_last_value_wins(act_out: ActOut, plan: Plan) -> None:
    act_out(plan)


@pytest.mark.prove
@settings(max_examples=2_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow], phases=PHASES)
@given(plan=plans())
def test_every_change_ends_in_one_known_state_and_the_last_value_wins_in_2000_plans(act_out: ActOut, plan: Plan) -> None:
    act_out(plan)
