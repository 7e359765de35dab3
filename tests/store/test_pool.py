"""What a user is told when the database cannot be reached, and what a connection of the pool is like."""

import socket
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.store.pool import DatabaseUnavailable, create_pool, without_password


async def what_is_said(dsn: str) -> str:
    with pytest.raises(DatabaseUnavailable) as raised:
        await create_pool(dsn, application_name="syncd tests", min_size=1, max_size=2)
    said = str(raised.value)
    assert "\n" not in said
    assert "secret" not in said
    return said


async def test_a_connection_of_the_pool(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        settings = {row["name"]: row["setting"] for row in await connection.fetch("SELECT name, setting FROM pg_settings")}
        assert settings["TimeZone"] == "UTC"
        assert settings["application_name"] == "syncd tests"
        assert settings["search_path"] == '"$user", public'
        assert settings["idle_in_transaction_session_timeout"] == "60000"
        assert await connection.fetchval("""SELECT '{"n": 12345678901234567890.10}'::jsonb""") == '{"n": 12345678901234567890.10}'


async def test_a_wrong_password(database: str) -> None:
    parts = urlsplit(database)
    wrong = parts._replace(netloc=f"syncd:secret@{parts.netloc.rpartition('@')[2]}").geturl()
    assert "refuses the user or the password" in await what_is_said(wrong)


async def test_a_missing_database(database: str) -> None:
    said = await what_is_said(urlsplit(database)._replace(path="/nowhere").geturl())
    assert "/nowhere" in said
    assert "no such database; create it" in said


async def test_no_server_on_the_port() -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        said = await what_is_said(f"postgresql://syncd:secret@127.0.0.1:{port}/syncd")
    assert said.startswith(f"database postgresql://syncd@127.0.0.1:{port}/syncd: no server answers there")


async def test_no_server_on_the_socket() -> None:
    assert "no server answers there" in await what_is_said("postgresql://syncd:secret@/syncd?host=/nowhere")


@pytest.mark.parametrize("dsn", ["host=localhost password=secret", "mysql://u:secret@host/db", "postgresql://localhost:1/secret@host/db"])
async def test_a_dsn_that_cannot_be_read(dsn: str) -> None:
    assert "write postgresql://user:password@host:5432/database" in await what_is_said(dsn)


@given(before=st.text(max_size=9), after=st.text(max_size=9))
def test_no_password_is_ever_shown(before: str, after: str) -> None:
    """Raw, as a user may type it: with the characters that ought to be percent-encoded."""
    assert "secret" not in without_password(f"postgresql://user:{before}secret{after}@host:5432/db?password=secret")


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p%40@h:5433/d?sslmode=require&password=x", "postgresql://u@h:5433/d?sslmode=require"),
        ("postgres://u:p@a:1,b:2/d", "postgres://u@a:1,b:2/d"),
        ("postgresql://u:p@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://u:p@/d?host=%2Frun%2Fpg&port=1", "postgresql://u@/d?host=/run/pg&port=1"),
        ("postgresql:///d", "postgresql:///d"),
    ],
)
def test_all_else_of_a_dsn_is_shown(dsn: str, shown: str) -> None:
    assert without_password(dsn) == shown
