"""Which pages may talk to this server: its own, and those that whoever serves it names.

A browser says with `Origin` which page a request comes from (RFC 6454: scheme, host and port, the default port left
out), and with `Sec-Fetch-Site` whether that page is the server's own. Programs say neither, and may talk to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit


DEFAULT_PORTS = {"http": 80, "https": 443}


class Origins:
    """Tells the server's own pages from strangers'.

    Args:
        allowed: origins of other sites whose pages may talk to it too, such as ``https://a.org``; ``*`` is everyone.

    Raises:
        ValueError: if one of them is no origin.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._everyone = "*" in allowed
        self._allowed = {_read(origin) for origin in allowed if origin != "*"}
        if None in self._allowed:
            wrong = next(origin for origin in allowed if origin != "*" and _read(origin) is None)
            raise ValueError(f"allowed_origins: {wrong!r} is no origin; write it as https://name or https://name:8443")

    def trusts(self, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from a page that may talk to the server, or from a program."""
        text = headers.get("origin")
        if text is None or self._everyone:
            return True
        origin = _read(text)
        if origin in self._allowed:
            return origin is not None
        if site := headers.get("sec-fetch-site"):  # the browser knows, whatever stands between; no page can forge it
            return site == "same-origin"
        return origin is not None and any(_same(origin, host) for host in _own_hosts(headers))


def _read(origin: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of a serialised origin, or None where there is none: ``null``, or nonsense."""
    try:
        parts = urlsplit(origin.strip())
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    bare = not (parts.path or parts.query or parts.fragment or parts.username is not None)
    return (parts.scheme, parts.hostname, port) if parts.hostname and bare else None


def _own_hosts(headers: Mapping[str, str]) -> Iterator[str]:
    """Names under which the visitor may have called this server: its own, and those that proxies pass on.

    Proxies append to `X-Forwarded-Host`, or name the host in `Forwarded` (RFC 7239).
    """
    yield headers.get("host", "")
    yield from headers.get("x-forwarded-host", "").split(",")
    for pair in headers.get("forwarded", "").replace(",", ";").split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "host":
            yield value.strip('"')


def _same(origin: tuple[str, str, int], host: str) -> bool:
    """Whether ``host`` (RFC 7230 5.4: a name, and a port unless it is the default) is that of ``origin``.

    Proxies often leave the port out, so that only one that is there counts.
    """
    scheme, name, port = origin
    try:
        parts = urlsplit(f"//{host.strip()}")
        return parts.hostname == name and parts.port in (None, port)
    except ValueError:
        return False
