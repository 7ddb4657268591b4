"""Certificates whose files are replaced while a service runs: taken without a reload, once they fit together."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from pathlib import Path

import pytest

from jump_peers import ask, home
from loopback import Caller, hears, told
from tls_programs import certificate
from tunnel_peers import web
from tunnelconsole.engine.events import CertificateRenewed, CertificateUnusable
from tunnelconsole.engine.services import certificate_pair
from tunnelconsole.engine.services.tunnel.certificates import CertificateSettings
from tunnelconsole.engine.settings import FilePath, TLSSettings
from tunnelconsole.engine.transport.certificates import certificate_fingerprint
from tunnelconsole.engine.transport.tls import fingerprint_of
from waiting import until

OLD, NEW = "old.example", "new.example"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at all the time."""
    monkeypatch.setattr(certificate_pair, "LOOK_AGAIN", 0.005)


class Archive:
    """A folder as certbot has it: ``live`` holds links to the files that are in force."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificate, self.key = folder / "live.crt", folder / "live.key"
        self.issue(OLD)

    def issue(self, name: str) -> None:
        """Puts a new pair beside the old one, then has each link lead to it."""
        for source, link in zip(certificate(name), (self.certificate, self.key), strict=True):
            self._lead(link, source)

    def issue_certificate(self, name: str) -> None:
        self._lead(self.certificate, certificate(name)[0])

    def issue_key(self, name: str) -> None:
        self._lead(self.key, certificate(name)[1])

    def _lead(self, link: Path, source: Path) -> None:
        target = self._folder / source.name
        shutil.copy(source, target)
        fresh = self._folder / "fresh"
        fresh.symlink_to(target)
        fresh.replace(link)

    @property
    def settings(self) -> TLSSettings:
        return TLSSettings(certificate=FilePath(str(self.certificate)), key=FilePath(str(self.key)))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def fingerprint(name: str) -> str:
    return certificate_fingerprint(certificate(name)[0])


async def connected(address: str, name: str = NEW) -> tuple[Caller, str]:
    """A connection to a server with TLS, and the fingerprint of the certificate that it was shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
    return Caller(reader, writer), fingerprint_of(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


async def shown(address: str, name: str = NEW) -> str:
    """The fingerprint of the certificate that a newcomer is shown."""
    caller, found = await connected(address, name)
    await caller.close()
    return found


async def test_a_renewed_certificate_is_shown_to_newcomers_without_a_reload_and_connections_go_on(
    archive: Archive,
) -> None:
    async with home(tls=archive.settings) as at:
        before, found = await connected(at.address)
        assert found == fingerprint(OLD)
        assert not await ask(before, at.far.address)
        archive.issue(NEW)
        event = await hears(at.engine, CertificateRenewed)
        assert (event.service, event.certificate) == ("home", str(archive.certificate))
        assert await shown(at.address) == fingerprint(NEW)
        assert at.engine.services["home"].notes["fingerprint"] == fingerprint(NEW)
        await before.send(b"still here")
        assert await before.read(10) == b"still here"
        await before.close()


async def test_files_that_do_not_fit_together_yet_are_told_once_and_taken_when_they_do(archive: Archive) -> None:
    async with home(tls=archive.settings) as at:
        archive.issue_certificate(NEW)
        event = await hears(at.engine, CertificateUnusable)
        assert str(archive.certificate) in event.text()
        assert "the one before stays in use" in event.text()
        assert await shown(at.address) == fingerprint(OLD)
        archive.issue_key(NEW)
        await hears(at.engine, CertificateRenewed)
        assert await shown(at.address) == fingerprint(NEW)
        assert len(told(at.engine, CertificateUnusable)) == 1
        assert len(told(at.engine, CertificateRenewed)) == 1


async def test_a_file_that_is_away_for_a_while_is_told_of_and_taken_when_it_is_back(archive: Archive) -> None:
    async with home(tls=archive.settings) as at:
        archive.key.unlink()
        assert "No such file or directory" in (await hears(at.engine, CertificateUnusable)).reason
        archive.issue(NEW)
        await hears(at.engine, CertificateRenewed)
        assert await shown(at.address) == fingerprint(NEW)


async def test_files_that_were_only_touched_are_no_news(archive: Archive) -> None:
    async with home(tls=archive.settings) as at:
        (pair,) = at.engine.services["home"].certificates
        os.utime(archive.certificate, (1, 1))
        await until(lambda: pair.stamp == pair.look())
        assert not told(at.engine, CertificateRenewed)


async def test_each_certificate_of_a_tunnel_server_is_taken_although_another_is_broken(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    (tmp_path / "named").mkdir()
    default, named = Archive(tmp_path / "default"), Archive(tmp_path / "named")
    files = {NEW: CertificateSettings(certificate=FilePath(str(named.certificate)), key=FilePath(str(named.key)))}
    at_default = {"certificate": FilePath(str(default.certificate)), "key": FilePath(str(default.key))}
    async with web(**at_default, certificates=files) as at:
        default.certificate.unlink()
        assert str(default.certificate) in (await hears(at.engine, CertificateUnusable)).reason
        named.issue(NEW)
        assert (await hears(at.engine, CertificateRenewed)).certificate == str(named.certificate)
        assert await shown(at.address, NEW) == fingerprint(NEW)
        assert await shown(at.address, "elsewhere.example") == fingerprint(OLD)
