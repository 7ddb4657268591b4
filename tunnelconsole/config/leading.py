"""Services that lead to others of the same configuration: an SSH server to the tunnel server that gives hostnames."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from tunnelconsole.config.reader import Reader, key_path

LEADS_TO = {"ssh-server": {"tunnel": "tunnel-server", "jump": "jump-server"}}
"""By kind: the keys that name another service, and of which kind that is."""


def check_leading(reader: Reader, services: Mapping[str, Mapping[str, object]], kinds: Mapping[str, str]) -> None:
    """Notes every name of a service that there is not, or that is of another kind.

    :param services: by the path of each table, those of its settings that could be read.
    :param kinds: the kind of each service, by the path of its table.
    """
    for path, values in services.items():
        for key, wanted in LEADS_TO.get(kinds.get(path, ""), {}).items():
            named = values.get(key)
            if isinstance(named, str) and kinds.get(key_path("service", named)) != wanted:
                reader.wrong(key_path(path, key), _advice(named, wanted, kinds))


def _advice(named: str, wanted: str, kinds: Mapping[str, str]) -> str:
    fitting = [path.partition(".")[2].strip('"') for path, kind in kinds.items() if kind == wanted]
    nearest = difflib.get_close_matches(named, fitting, 1)
    if nearest:
        return f'there is no {wanted} "{named}"; did you mean "{nearest[0]}"?'
    return f'there is no {wanted} "{named}"; there is {", ".join(fitting) if fitting else "none at all"}'
