"""The one way in for a console or a command: messages, server and client of the control socket."""
