"""The tunnel server over HTTPS: which certificate, changed files, and both kinds of listeners."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from loopback import FREE, hears, running
from tls_programs import certificate
from tunnel_peers import HOST, Got, Web, app_at, tunnel_client, visiting, web
from tunnelconsole.engine.events import PeerRefused, ServiceRetrying
from tunnelconsole.engine.services.tunnel.certificates import CertificateSettings
from tunnelconsole.engine.services.tunnel.server import TunnelServerSettings
from tunnelconsole.engine.settings import FilePath, Fingerprint, TLSSettings
from tunnelconsole.engine.transport.certificates import certificate_fingerprint
from tunnelconsole.engine.transport.tls import fingerprint_of
from tunnelconsole.engine.wire.hostport import format_host_port


def files_of(name: str) -> CertificateSettings:
    crt, key = certificate(name)
    return CertificateSettings(certificate=FilePath(crt), key=FilePath(key))


async def shown(address: str, name: str) -> str:
    """The fingerprint of the certificate that visitors of ``name`` are shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return fingerprint_of(found)


def fingerprint(name: str) -> str:
    return certificate_fingerprint(certificate(name)[0])


def trusting(name: str = HOST) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate(name)[0]))


async def test_the_certificate_is_that_of_the_host_that_is_asked_for() -> None:
    named = {
        "b.example": files_of("b.example"),
        "*.c.example": files_of("wild.example"),
        "exact.c.example": files_of("exact.example"),
    }
    default = files_of("default.example")
    async with web(certificate=default.certificate, key=default.key, certificates=named) as at:
        for host, name in (
            ("b.example", "b.example"),
            ("B.Example", "b.example"),
            ("x.c.example", "wild.example"),
            ("exact.c.example", "exact.example"),
            ("other.example", "default.example"),
        ):
            assert await shown(at.address, host) == fingerprint(name), host


async def test_without_a_default_the_first_certificate_is_for_all_others() -> None:
    async with web(certificates={"b.example": files_of("b.example")}) as at:
        assert await shown(at.address, "other.example") == fingerprint("b.example")


async def test_visitors_and_clients_may_come_with_tls_and_without() -> None:
    files = files_of(HOST)
    async with web(certificate=files.certificate, key=files.key, listen_http=FREE) as at:
        plain = _plain_address(at)
        async with app_at(at, scheme="https", tls=TLSSettings(ca=files.certificate)) as app:
            async with visiting(at.address, HOST, trusting()) as secure, visiting(plain, HOST) as open_one:
                for visitor, scheme in ((secure, "https"), (open_one, "http")):
                    got: Got = await visitor.get("/")
                    assert got.status == 200
                    assert app.local.seen[-1].value("X-Forwarded-Proto") == scheme
            assert app.service.address.startswith(f"https://{HOST}:")


def _plain_address(at: Web) -> str:
    listener = at.service._plain_listener
    assert listener is not None
    return format_host_port(listener.host, listener.port)


@pytest.mark.parametrize("native", [True, False])
async def test_a_client_may_pin_the_certificate_that_a_server_made_itself(native: bool) -> None:
    async with web(tls=TLSSettings()) as at:
        pinned = TLSSettings(fingerprint=Fingerprint(at.service.notes["fingerprint"]))
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        async with (
            app_at(at, scheme="https", tls=pinned, native=native),
            visiting(at.address, HOST, context) as visitor,
        ):
            for _ in range(3):
                assert (await visitor.get("/", method="POST", body=b"x" * 300_000)).body == b"POST / of 300000"


async def test_a_visitor_without_tls_is_told_in_http_that_the_server_has_it() -> None:
    files = files_of(HOST)
    async with web(certificate=files.certificate, key=files.key) as at, at.calling() as caller:
        await caller.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        answer = await caller.read_to_end()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"begin the address with https://" in answer
        assert "this is HTTPS" in (await hears(at.engine, PeerRefused)).reason


async def test_a_certificate_that_cannot_be_used_keeps_the_server_from_listening(tmp_path: Path) -> None:
    missing = FilePath(tmp_path / "missing.crt")
    settings = TunnelServerSettings(listen=FREE, certificate=missing, key=missing)
    async with running(web=settings) as engine:
        assert str(missing) in (await hears(engine, ServiceRetrying)).error


async def test_a_visitor_that_breaks_off_its_handshake_is_told_of_once() -> None:
    files = files_of(HOST)
    async with web(certificate=files.certificate, key=files.key) as at:
        host, _, port = at.address.rpartition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        await hears(at.engine, PeerRefused)
        assert not at.service.arrivals


async def test_certificates_and_a_tls_table_are_not_both_possible() -> None:
    files = files_of(HOST)
    settings = TunnelServerSettings(listen=FREE, certificate=files.certificate, key=files.key, tls=TLSSettings())
    async with running(web=settings) as engine:
        assert "leave one of them out" in (await hears(engine, ServiceRetrying)).error


async def test_a_tls_table_is_for_a_url_with_https() -> None:
    async with running(app=tunnel_client("127.0.0.1:1", "3000", tls=TLSSettings())) as engine:
        assert "write https://" in (await hears(engine, ServiceRetrying)).error
