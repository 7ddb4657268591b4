"""Tokens: a credential for each client, its rights and limits, and what the store keeps of it."""
