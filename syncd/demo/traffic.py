"""What goes on around syncd during a rehearsal: an application that enqueues changes, and what others do in Marketo itself."""

import json
import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

import asyncpg

from syncd.core.clock import Clock
from syncd.simulator import Simulator, World
from syncd.store.leases import Connection

INSTANCE, PUSH, PULL = "rehearsal", "contacts", "people"

PORTIONS = 30
BETWEEN_PORTIONS = (1.0, 8.0)  # seconds of the rehearsal's clock
EDITED_BY_OTHERS = 0.02  # of the leads, over the whole run
EDITS = 40
EXPORTS_BY_OTHERS = 0.2  # how often an edit comes with an export
HOT_KEYS = 100

_COMPANY = ("Acme, Inc.", 'Bolt & "Nut" Co', "Grün GmbH", "Ümlaut AG", "東京商事", "O'Neill; Sons", "<Brackets> Ltd")
_NAME = ("Ada", "Chloé", "Eşref", "José", "Zoë", "Anne Marie", "D'Arcy", "李")
_NOTES = (
    'She said "call me", twice',
    "two\nlines",
    "tab\tand; semicolon, comma",
    " spaces around ",
    "a < b & c > d",
    "null",
    "an umbrella ☂ inside",
)

Change = tuple[str, dict[str, Any]]
"""A key, and the fields to set."""


class Application:
    """Enqueues `changes` in portions, each in a transaction of its own, as a user's program would."""

    def __init__(self, changes: int, chance: random.Random, emails: Sequence[str]) -> None:
        self.enqueued = 0
        self.finished = False
        self._changes = invent_changes(changes, chance, emails)
        self._portion = max(1, -(-changes // PORTIONS))
        self._chance = chance

    async def run(self, dsn: str, clock: Clock) -> None:
        connection = await asyncpg.connect(dsn, server_settings={"application_name": "the application"})
        try:
            while not self.finished:
                await self._enqueue(connection)
                await clock.sleep(self._chance.uniform(*BETWEEN_PORTIONS))
        finally:
            connection.terminate()

    async def _enqueue(self, connection: Connection) -> None:
        rows = [(INSTANCE, PUSH, key, json.dumps(fields, ensure_ascii=False)) for key, fields in islice(self._changes, self._portion)]
        if not rows:
            self.finished = True
            return
        # The first by the function, the rest by a plain insert, here COPY: both are the contract.
        async with connection.transaction():
            await connection.execute("SELECT syncd.enqueue($1, $2, $3, $4::jsonb)", *rows[0])
            await connection.copy_records_to_table(
                "outbox", schema_name="syncd", columns=["instance", "push", "key", "fields"], records=rows[1:]
            )
        self.enqueued += len(rows)


class Others:
    """People who edit leads in Marketo itself, delete and merge a few, and have some exported.

    They edit no field that the application sets, so that it stays clear who set what, and lose only leads that it leaves alone:
    `spare`, three for each edit in a world that is large enough.
    """

    def __init__(self, simulator: Simulator, chance: random.Random) -> None:
        self._simulator = simulator
        self._chance = chance
        self._ids = [lead.id for lead in simulator.world]
        self.spare = chance.sample(self._ids, min(3 * EDITS, len(self._ids) // 10))
        self.lost: dict[int, int | None] = {}
        """The leads that are gone, and which lead each was merged into."""
        self.lost_at: datetime | None = None

    async def run(self, clock: Clock) -> None:
        spare = iter(self.spare)
        for _ in range(EDITS):
            await clock.sleep(self._chance.uniform(1.0, 8.0))
            self._edit()
            for deleted, winner, loser in zip(*[spare] * 3, strict=False):
                self._lose(deleted, winner, loser)
                self.lost_at = clock.now()
                break
            if self._chance.random() < EXPORTS_BY_OTHERS:
                with suppress(ValueError):  # the queue is full
                    self._simulator.add_foreign_export(self._chance.uniform(5.0, 15.0), 1_000_000)

    def _edit(self) -> None:
        world, chance = self._simulator.world, self._chance
        for lead_id in chance.sample(self._ids, round(len(self._ids) * EDITED_BY_OTHERS / EDITS)):
            if lead_id not in self.lost:
                world.update(lead_id, {"website": f"https://www.example.org/?visit={chance.randrange(10**6)}"})
        world.create({"firstName": "Walk-in", "email": f"Walk.In.{chance.randrange(10**9)}@example.net", "website": ""})

    def _lose(self, deleted: int, winner: int, loser: int) -> None:
        world = self._simulator.world
        world.delete(deleted)
        world.merge(winner, [loser])
        self.lost |= {deleted: None, loser: winner}


def addressable(world: World, but: Collection[int] = ()) -> list[str]:
    """The emails that one lead alone has: of several, Marketo updates whichever was updated last, and nobody could foretell which.

    Leads whose ids are in `but` are passed over.
    """
    left_alone = set(but)
    return [lead.email for lead in world if lead.email and lead.id not in left_alone and len(world.by_email(lead.email)) == 1]


def invent_changes(count: int, chance: random.Random, emails: Sequence[str]) -> Iterator[Change]:
    """`count` changes: mostly updates of leads there are, some new ones, busy keys, and a few rows that cannot go well."""
    hot = chance.sample(emails, min(HOT_KEYS, len(emails)))
    for number in range(count):
        kind = chance.random()
        key = _key(number, kind, chance, emails, hot)
        yield (key, _fields(number, chance)) if kind >= 0.005 else _trouble(number, key, chance)


def _key(number: int, kind: float, chance: random.Random, emails: Sequence[str], hot: Sequence[str]) -> str:
    if not emails or kind > 0.9:
        return f"New.Lead.{chance.randrange(number + 1)}@example.com"
    key = chance.choice(hot if kind > 0.87 else emails)
    return chance.choice((key, key, key, key.upper(), key.lower()))


def _fields(number: int, chance: random.Random) -> dict[str, Any]:
    # Few column sets: each fills files of its own, and so do the sums of those that meet in one key.
    match chance.choices(("score", "person", "account"), weights=(6, 2, 2))[0]:
        case "score":
            return {
                "leadScore": chance.choice((0, number % 200, -number % 50)),
                "company": chance.choice(_COMPANY),
                "unsubscribed": chance.random() < 0.5,
            }
        case "person":
            return {"firstName": chance.choice(_NAME), "lastName": f"{chance.choice(_NAME)} {number}", "notes": chance.choice(_NOTES)}
        case _:
            return {
                "accountNumber": 10**22 + number,
                "lifetimeValue": chance.randrange(10**7) / 100,
                "dateOfPurchase": f"20{chance.randrange(10, 26)}-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}",
                "lastWebinarAt": f"2026-01-{chance.randrange(1, 29):02}T12:00:00+02:00",
            }


def _trouble(number: int, key: str, chance: random.Random) -> Change:
    """What applications send too: most of it Marketo refuses row by row, some it warns of, some never leaves."""
    return chance.choice(
        (
            (key, {"leadScore": 12.5, "company": "Decimal & Sons", "unsubscribed": False}),
            (key, {"leadScore": number % 100, "company": "Undecided Ltd", "unsubscribed": "maybe"}),
            (key, {"firstName": "x" * 300, "lastName": f"Long {number}", "notes": "a name over its length"}),
            (f"jörg.{number}@example.com", {"leadScore": number % 100, "company": "Non-ASCII AG", "unsubscribed": False}),
            (f"not an address {number}", {"leadScore": number % 100, "company": "Invalid Email Ltd", "unsubscribed": False}),
            (key, {"notes": None}),
            (key, {"company": ["a", "list"]}),
        )
    )
