"""Who may have a service follow another plan.

A scenario names files of models, which the service then reads on its own machine and runs. So, unless the service is
told otherwise, only programs on that machine may apply one. A web page that is open there may not, whoever made it:

1. The body must say that it is JSON, which a page of another origin cannot do without asking first.
2. A request that a page made says so (``Origin``).
3. A request that a proxy has passed on (``Forwarded``, ``X-Forwarded-For``) counts as one from elsewhere.
4. The service must be called by a name of the loopback interface: that of another host may lead here for a page, too.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from starlette.requests import Request

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")


def refusal(request: Request, appliers: str) -> tuple[int, str] | None:
    """Return status and reason with which a request to apply something is refused; None if it is not.

    Parameters
    ----------
    appliers
        ``local``: programs on the service's machine; ``anyone`` who reaches it; ``none``.
    """
    if appliers == "none":
        return 403, "this service does not apply plans"
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return 415, "a request to apply a plan must be application/json"
    if "origin" in request.headers:
        return 403, "web pages may not apply plans"
    if appliers == "local" and not _is_local(request):
        return 403, "this service applies plans of its own machine's programs only, unless started with --apply anyone"
    return None


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    return _is_loopback(request.client.host) and _is_loopback(request.url.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
