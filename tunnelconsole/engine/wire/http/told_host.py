"""What a service that is told another ``Host`` says of its own address, made what visitors know it by."""

from __future__ import annotations

import re

import msgspec

from tunnelconsole.engine.wire.http.forward import host_name
from tunnelconsole.engine.wire.http.head import HttpError, ResponseHead, check_host

_URL = re.compile(r"(?:(https?):)?//([^/?#]*)(.*)", re.IGNORECASE)
_PORT = re.compile(r":([0-9]*)$")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOCAL = ("localhost", "127.0.0.1", "::1")
_URLS = frozenset(("location", "content-location"))
_SPEAKING = _URLS | {"set-cookie"}


class PublicURL(msgspec.Struct, frozen=True):
    """What a visitor came to, in front of the path."""

    #: ``http`` or ``https``.
    scheme: str
    #: With its port, where it was asked for with one.
    host: str


class ToldHost:
    """The host that a service is told in place of the visitor's.

    :param host: the value of ``Host``.
    :param name: where the service is reached, a host; empty where it has no address.
    :param port: and its port.
    """

    __slots__ = ("_name", "_names", "_port", "host")

    def __init__(self, host: str, name: str = "", port: int = 0) -> None:
        self.host = host
        self._name = host_name(host)
        name = name.lower()
        #: By which it may know its port.
        self._names = frozenset((self._name, *(_LOCAL if name in _LOCAL else (name,))))
        self._port = port

    def made_public(self, head: ResponseHead, public: PublicURL) -> ResponseHead:
        """Return the head of a response in which no URL leads to the service itself, but to where its visitor came.

        That is ``Location`` and ``Content-Location`` with a whole URL of the host that it was told, or of its own
        address; and a cookie's domain, where it is the host that it was told. All else is as it was.
        """
        if _SPEAKING.isdisjoint(head.keys):
            return head
        fields = tuple(
            (name, self._value(key, value, public)) for (name, value), key in zip(head.fields, head.keys, strict=True)
        )
        return msgspec.structs.replace(head, fields=fields)

    def _value(self, key: str, value: str, public: PublicURL) -> str:
        if key in _URLS:
            return self._url(value, public)
        return self._cookie(value, public) if key == "set-cookie" else value

    def _url(self, url: str, public: PublicURL) -> str:
        found = _URL.fullmatch(url)
        if found is None:
            return url
        scheme, host, rest = (found[1] or "").lower(), found[2], found[3]
        if not self._is_meant(host, scheme or public.scheme):
            return url
        if not scheme:
            return f"//{public.host}{rest}"
        if scheme == "https" and public.scheme == "http":
            # It wants the visitor to come by HTTPS, and of the public host that port is not known.
            return f"https://{_PORT.sub('', public.host)}{rest}"
        return f"{public.scheme}://{public.host}{rest}"

    def _is_meant(self, host: str, scheme: str) -> bool:
        try:
            check_host(host)
        except HttpError:
            return False
        name, port = host_name(host), _port_of(host, scheme)
        if name == self._name and port == _port_of(self.host, scheme):
            return True
        return bool(self._port) and name in self._names and port == self._port

    def _cookie(self, cookie: str, public: PublicURL) -> str:
        pair, *attributes = cookie.split(";")
        for at, attribute in enumerate(attributes):
            name, _, value = attribute.partition("=")
            domain = value.strip(" \t").lower().removeprefix(".")
            if name.strip(" \t").lower() == "domain" and domain == self._name:
                attributes[at] = f"{name}={host_name(public.host)}"
        return ";".join((pair, *attributes))


def _port_of(host: str, scheme: str) -> int:
    found = _PORT.search(host)
    return int(found[1]) if found is not None and found[1] else _DEFAULT_PORTS[scheme]
