"""What a program finds in the package."""

from __future__ import annotations

import pytest

import tunnelconsole


@pytest.mark.parametrize("name", tunnelconsole.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(tunnelconsole, name) is getattr(tunnelconsole, name)
    assert name in dir(tunnelconsole)


def test_a_name_that_is_not_promised_is_an_ordinary_mistake() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Engin'"):
        tunnelconsole.Engin  # type: ignore[attr-defined]  # noqa: B018


async def test_an_engine_is_embedded_with_names_of_the_package_alone() -> None:
    settings = tunnelconsole.RelayServerSettings(listen=tunnelconsole.ListenAddress("127.0.0.1", 0))
    async with tunnelconsole.Engine({"edge": settings}) as engine:
        await engine.settled()
        assert engine.services["edge"].state == "listening"
