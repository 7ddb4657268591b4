"""The ssh room: the console and its commands, over SSH.

:mod:`~tunnelconsole.engine.services.ssh.server` is the service. Everything else is loaded when one runs, because
asyncssh costs a third of a second and 15 MiB, which engines without it need not pay.
"""
