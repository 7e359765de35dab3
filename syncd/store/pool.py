"""Connections to the user's database, and what to say when there are none."""

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

CONNECT_TIMEOUT = 10.0  # seconds

# For a daemon: nothing of ours takes minutes, waits for a stranger's lock that long, or thinks inside a transaction.
DAEMON_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": "5min",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    # Every statement on a hot path is a walk of an index, and must stay one while a first fill runs ahead of the statistics: a plan
    # made when the tables were empty, or a hash of the whole history, took seconds where the index takes milliseconds.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


UNREADABLE = "(a DSN that cannot be read)"
MALFORMED = "write postgresql://user:password@host:5432/database, with @ : / ? # in the password as %40 %3A %2F %3F %23"
HOSTS = re.compile(r"(?:(?:\[[0-9a-fA-F:.]+\]|[^:,\[\]]*)(?::\d+)?(?:,|$))*")


class DatabaseUnavailable(Exception):  # noqa: N818 - a state of the world, not a mistake of ours
    """The database cannot be used; one line that says which, why and what to do, without the password."""


async def create_pool(dsn: str, *, application_name: str, min_size: int, max_size: int) -> asyncpg.Pool:
    """A pool for the daemon's statements: UTC, limits on time, jsonb as text.

    The search_path is the role's own, as every statement of ours names `syncd.`. Raises DatabaseUnavailable.
    """
    with explained(dsn):
        return await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            timeout=CONNECT_TIMEOUT,
            reset=_as_it_is,
            server_settings={"application_name": application_name, **DAEMON_SETTINGS},
        )


async def _as_it_is(_: object) -> None:
    """What is set ends with its transaction, and who makes a session's state ends the session: putting all back would only be one
    exchange more for each page and claim."""


def without_password(dsn: str) -> str:
    """The DSN as it may be shown; nothing of one that is malformed, as its password may sit anywhere."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return UNREADABLE
    user, hosts = (parts.username or ""), parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("postgresql", "postgres") or not HOSTS.fullmatch(hosts) or parts.fragment or "@" in parts.path + parts.query:
        return UNREADABLE
    shown = [(name, value) for name, value in parse_qsl(parts.query) if name in ("host", "port", "user", "database", "dbname", "sslmode")]
    query = f"?{urlencode(shown, safe='/')}" if shown else ""
    return f"{parts.scheme}://{user}{'@' if user else ''}{hosts}{parts.path}{query}"


@contextlib.contextmanager
def explained(dsn: str) -> Iterator[None]:
    """Turn what can go wrong when connecting to `dsn` into DatabaseUnavailable."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        shown, reason = without_password(dsn), _reason(error)
        if shown == UNREADABLE and not isinstance(error, asyncpg.PostgresError):
            reason = MALFORMED
        if reason is None:
            raise
        raise DatabaseUnavailable(f"database {shown}: {reason}") from error


def _reason(error: Exception) -> str | None:
    """What happened and what to do; None when it is not about connecting."""
    match error:
        case asyncpg.InvalidPasswordError():
            return "the server refuses the user or the password; check both in the DSN"
        case asyncpg.InvalidAuthorizationSpecificationError():
            return f"the server does not let this user in ({error}); check the user in the DSN and the server's pg_hba.conf"
        case asyncpg.InvalidCatalogNameError():
            return "the server has no such database; create it (createdb), or correct its name in the DSN"
        case asyncpg.InsufficientPrivilegeError():
            return f"the user lacks a right ({error}); grant it"
        case asyncpg.CannotConnectNowError():
            return "the server is starting up or shutting down; try again in a moment"
        case asyncpg.TooManyConnectionsError():
            return "the server has no connection left; raise its max_connections, or end other clients"
        case asyncpg.PostgresError():
            return None
        case asyncpg.ClientConfigurationError() | ValueError():
            return MALFORMED
        case ssl.SSLError():
            return f"no TLS connection ({error.reason}); check sslmode and the certificates"
        case socket.gaierror():
            return "the host name is not known; check it in the DSN"
        case TimeoutError():
            return f"no answer within {CONNECT_TIMEOUT:.0f} s; check host and port in the DSN, and the firewall"
        case OSError():
            return f"no server answers there ({error}); check host and port in the DSN, and that PostgreSQL runs and listens"
        case _:
            return f"the connection failed ({error})"
