"""The protocols as pure state machines: bytes in, bytes and events out.

Nothing here knows a socket, a clock or a task, so each protocol can be tested byte by byte, split at any offset,
and fuzzed. A machine is fed by ``receive_data`` (which returns the events that the bytes caused), drained by
``data_to_send``, and raises :class:`~tunnelconsole.engine.wire.errors.ProtocolError` when the remote breaks the rules.
"""
