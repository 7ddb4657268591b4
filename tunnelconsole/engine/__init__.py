"""The engine: everything that runs tunnels. Nothing in it imports Textual."""
