"""What went wrong, as one line for a person and an exit code for a script; a traceback is for our own bugs only."""

import asyncpg
from sqlalchemy.exc import DBAPIError

from syncd.config import ConfigErrors
from syncd.ops.http import PortTaken
from syncd.store.embedded import EmbeddedPostgresError
from syncd.store.pool import DatabaseUnavailable
from syncd.store.schema import SchemaMismatch

FAILED, USAGE, CONFIGURATION = 1, 2, 78  # 78: EX_CONFIG of sysexits.h, on which systemd need not restart

_WRONG_SETTING = (
    asyncpg.InvalidAuthorizationSpecificationError,  # of which a wrong password is one
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
    ValueError,
)


class Refused(Exception):  # noqa: N818 - not a mistake of ours
    """A command can't do what it was asked for; the message is the line to show."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def explain(error: BaseException) -> tuple[str, int] | None:
    """The line (several for a configuration) and the exit code; None for what nobody expected."""
    match error:
        case Refused():
            return str(error), error.code
        case ConfigErrors():
            return str(error), CONFIGURATION
        case SchemaMismatch():
            return str(error), CONFIGURATION
        case DatabaseUnavailable():
            return str(error), CONFIGURATION if isinstance(error.__cause__, _WRONG_SETTING) else FAILED
        case PortTaken() | EmbeddedPostgresError():
            return str(error), FAILED
        case DBAPIError(orig=BaseException(__cause__=BaseException() as cause)):
            return explain(cause)
        case asyncpg.DiskFullError():
            return f"the database's disk is full ({str(error).splitlines()[0]}); free space there", FAILED
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | ConnectionError():
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            return f"the database failed: {first_line}; run syncd check", FAILED
        case BaseExceptionGroup() if len(error.exceptions) == 1:
            return explain(error.exceptions[0])
    return None
