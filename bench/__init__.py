"""Measures TunnelConsole side by side with the peers that are installed: ``python -m bench``."""
