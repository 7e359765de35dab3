"""What `syncd check` found out, as values that travel between a command and a daemon."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: `detail` is what happened, `remedy` what to do about it when it is not `ok`. Holds no secret."""

    what: str
    ok: bool
    detail: str
    remedy: str | None = None
