"""The console: what an operator sees of a running engine, and how it is steered.

It lives in a process of its own and reaches the engine through :mod:`tunnelconsole.control` alone. This package imports
nothing when it is imported; :func:`tunnelconsole.screens.app.run_console` starts the console.
"""
