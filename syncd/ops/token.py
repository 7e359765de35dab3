"""Asks readers who they are: a token as `Authorization: Bearer`, or once as `?token=`, which then becomes a cookie."""

import hmac
from hashlib import sha256

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from syncd.core.settings import Secret

COOKIE = "syncd"
OPEN = frozenset({"/healthz", "/readyz"})
"""What tells nothing but one word: load balancers and kubelets ask without a token."""


def guarded(token: Secret) -> Middleware:
    """A middleware that lets pass whoever shows `token`."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN:
            return await handler(request)
        try:
            secret = token.reveal()
        except OSError as error:
            return web.Response(status=503, text=f"http.token: {error}\n")
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(shown.strip(), secret):
            return await handler(request)
        if _same(request.cookies.get(COOKIE, ""), _badge(secret)):
            return await handler(request)
        if request.method == "GET" and _same(request.query.get("token", ""), secret):
            return _welcome(request, secret)
        text = "show the token of http.token: as Authorization: Bearer, or once as ?token=\n"
        return web.Response(status=401, text=text, headers={"WWW-Authenticate": "Bearer"})

    return guard


def _welcome(request: web.Request, secret: str) -> web.StreamResponse:
    """Off the address bar, and so out of histories and logs, with the token."""
    response = web.Response(status=303, headers={"Location": request.path})
    # lax, for a link from elsewhere may lead here: all that it could do is to have somebody look
    response.set_cookie(COOKIE, _badge(secret), path="/", httponly=True, samesite="Lax", secure=request.secure)
    return response


def _badge(secret: str) -> str:
    """What the cookie holds: it can't be turned into the token, and another token makes it void."""
    return hmac.new(secret.encode(), b"syncd page", sha256).hexdigest()


def _same(shown: str, wanted: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), wanted.encode())
