"""The errors of TunnelConsole: each says what happened, to what, and what to do about it.

The tree::

    TunnelConsoleError
    ├── ConfigError            the configuration is wrong; carries every mistake found
    ├── CredentialsRefused     the other end does not accept our secret; never retried
    │   ├── CertificateRefused  the server does not take our client certificate, or wants one; never retried
    │   └── HostKeyRejected    the SSH host on the way is not known, or not the one that is; never retried
    ├── ConnectFailed          the other end cannot be reached, or broke off; retried with backoff
    │   ├── CertificateRejected  the server's certificate is not one we trust
    │   └── TargetRefused      the far end was reached but would not, or could not, dial the target
    ├── ListenFailed           an address cannot be listened on
    ├── NotPrivate             others could change what is kept in a folder, so nothing is
    ├── EngineUnreachable      no engine answers on the control socket
    └── RequestRefused         the engine understood a request and refused it
"""

from __future__ import annotations


class TunnelConsoleError(Exception):
    """What happened, in one sentence without secrets, and a hint what to do.

    :param message: what happened, and to what.
    :param hint: what the reader can do about it; empty when there is nothing to add.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(TunnelConsoleError):
    """The configuration is wrong.

    :param problems: every mistake found, each beginning with its key path, such as
        ``service.home.listen: expected "host:port"``.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CredentialsRefused(TunnelConsoleError):
    """The other end does not accept our secret. Trying again cannot help, so nobody does."""


class CertificateRefused(CredentialsRefused):
    """The server wants a client certificate, or does not take ours; nobody tries that again."""


class HostKeyRejected(CredentialsRefused):
    """The SSH host on the way is not known, or shows another key than the known one; nobody tries that again."""


class ConnectFailed(TunnelConsoleError):
    """The other end cannot be reached, or broke off before the handshake was done."""


class HostTaken(ConnectFailed):
    """The tunnel server says that another client has the host, which may be over at any time."""


class CertificateRejected(ConnectFailed):
    """The server's certificate does not chain to a trusted authority, or is for another name."""


class TargetRefused(ConnectFailed):
    """The jump host or backend was reached, but would not or could not dial the target."""


class ListenFailed(TunnelConsoleError):
    """An address cannot be listened on: it is in use, not ours, or not permitted."""


class NotPrivate(TunnelConsoleError):
    """A folder is another user's, or others can write it: what is kept there could be led astray, so nothing is."""


class EngineUnreachable(TunnelConsoleError):
    """No engine answers on the control socket."""


class RequestRefused(TunnelConsoleError):
    """The engine understood a request and refused it; the message says why."""
