"""Who a visitor is that comes through proxies in front of us, as far as their word is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunnelconsole.engine.access import plain_address


def visitor_of(peer: str, values: Mapping[str, str], trusts: Callable[[str], bool]) -> str:
    """The first address, seen from us, that is no trusted proxy's; or the farthest that is known.

    :param peer: who has connected, as ``host:port``.
    :param values: of the request's fields, by name in lower case.
    :param trusts: whether the word of a ``host:port`` is taken.
    """
    known = asked = peer
    for text in reversed(values.get("x-forwarded-for", "").split(",")):
        if not trusts(asked):
            break
        try:
            known = str(plain_address(text.strip()))
        except ValueError:
            break
        asked = f"[{known}]:0"
    return known
