"""Looking at what strangers bring, before they have proved anything."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from client_certificates import Owned, self_signed
from tunnelconsole.engine.transport import client_trust
from tunnelconsole.engine.transport.client_trust import ClientTrust, first_certificate, key_pin
from tunnelconsole.engine.transport.tls import server_context
from tunnelconsole.errors import ListenFailed


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return self_signed(tmp_path_factory.mktemp("own"), "/CN=own")


def der_of(owned: Owned) -> bytes:
    return ssl.PEM_cert_to_DER_cert(owned.certificate.read_text())


def handshake(context: ssl.SSLContext, owned: Owned) -> None:
    """A handshake in memory, with what a client shows.

    :raises ssl.SSLError: the server does not take it.
    """
    showing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    showing.check_hostname = False
    showing.verify_mode = ssl.CERT_NONE
    showing.load_cert_chain(*owned)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = showing.wrap_bio(to_client, to_server)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client.do_handshake()
    server.do_handshake()


def test_a_pin_is_what_openssl_computes(own: Owned) -> None:
    assert key_pin(der_of(own)) == own.pin


def test_every_certificate_that_is_cut_short_or_followed_by_more_has_no_pin(own: Owned) -> None:
    whole = der_of(own)
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match="certificate"):
            key_pin(whole[:length])
    with pytest.raises(ValueError, match="behind"):
        key_pin(whole + b"\0")


@given(some.binary(max_size=200))
def test_whatever_comes_is_walked_through_without_a_fault(data: bytes) -> None:
    assert isinstance(first_certificate(data), bytes)
    try:
        key_pin(data)
    except ValueError:
        return


@given(some.data())
def test_a_certificate_that_was_changed_is_walked_through_without_a_fault(own: Owned, data: some.DataObject) -> None:
    changed = bytearray(der_of(own))
    for at in data.draw(some.lists(some.integers(0, len(changed) - 1), max_size=4)):
        changed[at] = data.draw(some.integers(0, 255))
    try:
        key_pin(bytes(changed))
    except ValueError:
        return


def test_a_listed_key_gets_through(own: Owned) -> None:
    context = server_context(*own)
    ClientTrust(None, {"own": own.pin}).demand(context)
    handshake(context, own)


def without_the_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl.SSLContext, "_msg_callback", None)  # what is set then is an attribute like any other


def with_a_silent_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl.SSLContext, "_msg_callback", property(lambda _: None, lambda _, __: None))


@pytest.mark.parametrize("lose", [without_the_callback, with_a_silent_callback])
def test_a_list_that_ssl_does_not_help_with_is_told_at_the_start(
    own: Owned, monkeypatch: pytest.MonkeyPatch, lose: object
) -> None:
    assert callable(lose)
    lose(monkeypatch)
    with pytest.raises(ListenFailed, match=r"client_keys cannot be used.*client_ca"):
        ClientTrust(None, {"own": own.pin}).demand(server_context(*own))


@pytest.mark.parametrize("lose", [without_the_callback, with_a_silent_callback])
def test_a_listed_key_is_not_taken_unseen(own: Owned, monkeypatch: pytest.MonkeyPatch, lose: object) -> None:
    assert callable(lose)
    lose(monkeypatch)
    monkeypatch.setattr(client_trust, "_is_watched", lambda _: True)
    context = server_context(*own)
    ClientTrust(None, {"own": own.pin}).demand(context)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, own)


def test_what_one_connection_is_trusted_for_no_other_is(own: Owned, tmp_path: Path) -> None:
    context = server_context(*own)
    ClientTrust(None, {"own": own.pin}).demand(context)
    handshake(context, own)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, self_signed(tmp_path, "/CN=own", file="other"))
    assert context.cert_store_stats()["x509"] == 0


def test_a_key_that_was_taken_from_the_list_is_not_taken_though_its_context_is_kept(own: Owned) -> None:
    trust, context = ClientTrust(None, {"own": own.pin}), server_context(*own)
    trust.demand(context)
    handshake(context, own)
    trust.take({})
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, own)


@pytest.mark.parametrize("keys", [{"anonymous": "0" * 64}, {"a\0": "0" * 64}, {"a": "0" * 64, "b": "0" * 64}])
def test_a_list_by_which_nobody_could_be_told_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="client_keys"):
        ClientTrust(None, keys)
