"""Any interleaving of changes, late commits, crashes, faults, foreign jobs and operators: every change ends in exactly one known state.

A failure prints the plan that it was shrunk to: paste it as an `@example`. `--hypothesis-seed=N` repeats a whole run of plans, and
what `print_blob` prints repeats one of them.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from structlog.testing import capture_logs

from syncd.store.embedded import EmbeddedPostgres
from syncd.store.leases import Pool
from syncd.store.pool import create_pool
from tests.conftest import TEMPLATE, clone
from tests.flows.machine.plans import (
    Begin,
    Discard,
    End,
    Enqueue,
    Fill,
    Foreign,
    New,
    Pack,
    Plan,
    Restart,
    Retry,
    Run,
    Settle,
    Submit,
    Sync,
    Wait,
    Weather,
    plans,
)
from tests.flows.machine.world import World

ActOut = Callable[[Plan], None]
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]  # not `explain`: its tracing makes every plan slower
ANN = New("contacts", "a@x.io", {"company": "plain", "firstName": "plain"})
ANN_AGAIN = New("members", " A@x.io", {"company": "plain"})
BEN = New("contacts", "b@x.io", {"lastName": "plain"})
URGENT = New("contacts", "a@x.io", {"firstName": "plain", "lastName": "plain"}, urgent=True)
URGENT_AGAIN = New("members", "a@x.io", {"firstName": "null"}, urgent=True)
LATER = New("contacts", "a@x.io", {"firstName": "plain"}, urgent=True)
UNTIL_SENT = (Run(2), Wait(11), Run(2))
UNTIL_SETTLED = (*UNTIL_SENT, Wait(35), Run(3), Wait(35), Run(3))
STORIES = {
    "a death after the POST": (Enqueue((ANN,)), Submit("dies after"), *UNTIL_SENT, Submit(), Enqueue((BEN,)), *UNTIL_SETTLED),
    "a lost reply, and a later import": (Submit("lost"), Enqueue((ANN,)), *UNTIL_SENT, Enqueue((BEN, ANN_AGAIN)), *UNTIL_SETTLED),
    "a lost reply, and a shorter import beside it": (
        Foreign(2, 5, None),
        Wait(60),
        Submit("lost"),
        Enqueue((ANN,)),
        *UNTIL_SENT,
        Enqueue((BEN,)),
        *UNTIL_SENT,
        Wait(90),
        Run(8),
    ),
    "lost replies of many": (
        Submit("lost"),
        Submit("lost"),
        Submit("lost"),
        Submit("lost"),
        Fill("contacts", 25, 0, "company"),
        Run(3),
        *UNTIL_SETTLED,
    ),
    "a late commit": (Begin(0, (ANN,)), Enqueue((ANN_AGAIN,)), *UNTIL_SETTLED, End(0, commits=True)),
    "a late commit beside its key": (Begin(0, (ANN,)), Enqueue((ANN_AGAIN,)), *UNTIL_SENT, End(0, commits=True), Run(1)),
    "short results": (
        Enqueue((New("members", "c@x.io", {"company": "bad"}), New("members", "d@x.io", {"company": "plain"}))),
        Weather(status_away=False, results="short"),
        *UNTIL_SENT,
        *(Wait(400), Settle()) * 9,
    ),
    "bisection": (Fill("contacts", 9, 0, "company"), Enqueue((New("contacts", "5@x.io", {"company": "poison"}),)), *UNTIL_SETTLED),
    "a retry overtaken": (
        Enqueue((New("members", "a@x.io", {"company": "bad", "firstName": "plain"}),)),
        *UNTIL_SETTLED,
        Enqueue((ANN,)),
        Retry(None),
        *UNTIL_SETTLED,
        Retry(None),
    ),
    "a retry of what was too large": (
        Submit("413"),
        Enqueue((New("members", "c@x.io", {"company": "plain"}),)),
        *UNTIL_SETTLED,
        Retry(None),
        *UNTIL_SETTLED,
    ),
    "a takeover during the POST": (
        Enqueue((ANN,)),
        *UNTIL_SENT[:2],
        Run(1),
        Submit("ok", (Restart(("contacts", "crm", "members"), other=True, graceful=False), Enqueue((ANN_AGAIN,)), Run(2))),
        *UNTIL_SETTLED,
    ),
    "a push that is gone while its import is in doubt": (
        Submit("lost"),
        Enqueue((ANN, BEN)),
        *UNTIL_SENT,
        Restart(("crm",), other=False, graceful=True),
        Wait(30_000),
        *UNTIL_SENT,
        Discard("contacts", "a@x.io"),
        *UNTIL_SENT,
    ),
    "an urgent change passes a job, and its call's reply is lost": (
        Enqueue((ANN,)),
        *UNTIL_SENT[:2],
        Run(1),
        Submit(),
        Enqueue((URGENT,)),
        Sync("lost"),
        Enqueue((URGENT_AGAIN, ANN_AGAIN)),
        Sync("skips"),
        *UNTIL_SETTLED,
    ),
    "a call that has passed a job is executed after all that came later": (
        Enqueue((ANN,)),
        *UNTIL_SENT[:2],
        Run(1),
        Submit(),
        Wait(60),
        Run(1),
        Enqueue((URGENT,)),
        Sync("late"),
        Wait(35),
        Run(3),
        Wait(20),
        Run(3),
        Enqueue((LATER,)),
        Run(3),
        Wait(95),
        *UNTIL_SETTLED,
    ),
    "an urgent change that goes again meets a later one in a job": (
        Enqueue((New("contacts", "a@x.io", {"firstName": "plain"}, urgent=True),)),
        Sync("lost"),
        Enqueue((New("members", "a@x.io", {"firstName": "plain"}),)),
        Wait(700),
        Sync(),
        Pack(),
        Wait(11),
        Pack(),
        Submit(),
        Wait(200),
        Sync(),
        *UNTIL_SETTLED,
    ),
    "an answer that comes to nobody, and later words on the same field": (
        Enqueue((URGENT,)),
        Sync("ok", (Restart(("contacts", "crm", "members"), other=False, graceful=False),)),
        Enqueue((URGENT,)),
        Sync("ok"),
        Enqueue((ANN, BEN)),
        *UNTIL_SENT[:2],
        Run(1),
        Submit("ok", (Restart(("contacts", "crm", "members"), other=False, graceful=False),)),
        Enqueue((ANN, BEN)),
        *UNTIL_SETTLED,
    ),
    "what waits beside an urgent change is parked": (
        Enqueue((ANN,)),
        *UNTIL_SENT[:2],
        Run(1),
        Submit(),
        Enqueue((New("contacts", "a@x.io", {"company": "null"}),)),
        Pack(),
        Enqueue((URGENT,)),
        Sync(),
        *UNTIL_SETTLED,
    ),
    "a clear beside what Sync Leads does not write": (
        Enqueue((ANN, New("contacts", "a@x.io", {"firstName": "null"}), New("crm", "k1", {"lastName": "null"}))),
        Pack(),
        Wait(6),
        Sync("dies after", (Enqueue((ANN_AGAIN,)),)),
        *UNTIL_SETTLED,
        Wait(700),
        *UNTIL_SETTLED,
    ),
    "urgent and not for Sync Leads": (
        Enqueue((ANN,)),
        Enqueue((New("contacts", "a@x.io", {"company": "plain", "lastName": "null"}, urgent=True), URGENT)),
        Sync(),
        *UNTIL_SETTLED,
    ),
    "a full queue": (Foreign(9, 60, 7), Fill("members", 25, 0, "company"), *UNTIL_SETTLED),
}


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


@pytest.mark.parametrize("story", STORIES)
def test_what_is_known_to_be_hard(act_out: ActOut, story: str) -> None:
    act_out(Plan(STORIES[story], run_seconds=90))


@settings(max_examples=15, phases=PHASES, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans())
def test_every_change_ends_in_one_known_state_and_the_last_value_wins(act_out: ActOut, plan: Plan) -> None:
    act_out(plan)


@pytest.mark.prove
@settings(max_examples=2_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow], phases=PHASES)
@given(plan=plans())
def test_every_change_ends_in_one_known_state_and_the_last_value_wins_in_2_000_plans(act_out: ActOut, plan: Plan) -> None:
    act_out(plan)
