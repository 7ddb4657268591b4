"""Who is let in by a file of keys, and who is not."""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path

import asyncssh
import hypothesis
import pytest
from hypothesis import strategies

from damaged_keys import damaged_ecdsa_line, damaged_rsa_line
from tunnelconsole.engine.services.ssh.forward_rights import NotAKey
from tunnelconsole.engine.services.ssh.host_key import load_host_key
from tunnelconsole.engine.services.ssh.keys import LARGEST, AuthorizedKeys, parse_line
from tunnelconsole.errors import ListenFailed

PEER = "192.0.2.7:50000"
NOW = 1_900_000_000.0  # 2030-03-17
STRANGER = 54321

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def public(comment: str = "alice", kind: str = "ssh-ed25519") -> str:
    """The line of a new key."""
    return asyncssh.generate_private_key(kind, comment).export_public_key().decode().strip()


SAMPLES = {kind: public(kind=kind) for kind in ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256")}
"""Lines whose keys are made once."""


class Keys:
    """A file of keys, and what was reported of it."""

    def __init__(self, path: Path, *lines: str) -> None:
        self.path = path
        self.write(*lines)
        self.reported: list[str] = []
        self.keys = AuthorizedKeys(path, self.reported.append, lambda: NOW)

    def write(self, *lines: str) -> None:
        self.path.write_text("".join(f"{line}\n" for line in lines))

    def identity(self, line: str) -> str:
        """Who comes in with the key of this line; "" for nobody."""
        entry = self.keys.find(asyncssh.import_public_key(line[line.index("ssh-") :]).public_data)
        return "" if entry is None else entry.identity


def test_who_comes_is_known_by_the_comment(tmp_path: Path) -> None:
    line = public("alice at work")
    assert Keys(tmp_path / "keys", "# a comment", "", line).identity(line) == "alice at work"


def test_without_a_comment_by_the_fingerprint(tmp_path: Path) -> None:
    line = " ".join(public().split()[:2])
    assert Keys(tmp_path / "keys", line).identity(line).startswith("SHA256:")


def test_a_key_that_is_not_there_lets_nobody_in(tmp_path: Path) -> None:
    assert Keys(tmp_path / "keys", public()).identity(public()) == ""


def test_the_role_is_operate_unless_it_is_view() -> None:
    assert parse_line(public()).role == "operate"
    assert parse_line(f'role="operate" {public()}').role == "operate"
    assert parse_line(f'role="view" {public()}').role == "view"


def test_a_second_factor_is_asked_for_unless_the_key_alone_is_enough() -> None:
    assert not parse_line(public()).key_only
    assert parse_line(f'role="view",key-only {public()}').key_only


def test_a_comment_may_be_anything() -> None:
    assert parse_line(f"{' '.join(public().split()[:2])} José Álvarez \u202eabc").identity == "José Álvarez abc"


def test_of_two_roles_the_lesser_counts() -> None:
    assert parse_line(f'role="view",role="operate" {public()}').role == "view"


@pytest.mark.parametrize(
    "options",
    [
        'role="admin"',
        'key-only="yes"',
        "role",
        'command="id"',
        "cert-authority",
        'from=""',
        'expiry-time="soon"',
        'from="10.0.0.0/8',
        "pty=1",
        'expiry-time="20301350"',
        'environment="A=b"',
        "permitopen",
    ],
)
def test_an_option_that_is_not_known_lets_nobody_in(options: str) -> None:
    with pytest.raises(NotAKey):
        parse_line(f"{options} {public()}")


def test_a_line_that_lets_nobody_in_is_told_with_its_number_and_the_others_count(tmp_path: Path) -> None:
    good = public()
    keys = Keys(tmp_path / "keys", f'command="id" {public()}', good)
    assert keys.identity(good) == "alice"
    (told,) = keys.reported
    assert "line 1" in told
    assert "command" in told


@pytest.mark.parametrize(
    ("source", "permitted"),
    [
        ("192.0.2.0/24", True),
        ("192.0.2.7", True),
        ("192.0.2.*", True),
        ("10.0.0.0/8", False),
        ("!192.0.2.7,192.0.2.*", False),
    ],
)
def test_from_says_where_a_key_may_be_used(source: str, permitted: bool) -> None:
    entry = parse_line(f'from="{source}" {public()}')
    assert bool(entry.refuses(PEER, NOW)) != permitted


def test_from_means_an_ipv4_address_inside_ipv6_too() -> None:
    assert parse_line(f'from="192.0.2.0/24" {public()}').refuses("[::ffff:192.0.2.7]:5", NOW) == ""


@pytest.mark.parametrize(
    ("time", "open_still"),
    [("20300316Z", False), ("20300318Z", True), ("203003171747Z", True), ("20300317174639Z", False)],
)
def test_an_expired_key_opens_nothing(time: str, open_still: bool) -> None:
    refused = parse_line(f'expiry-time="{time}" {public()}').refuses(PEER, NOW)
    assert ("expired" in refused) != open_still


def test_restrict_takes_the_terminal_and_pty_gives_it_back() -> None:
    assert not parse_line(f"restrict {public()}").terminal
    assert parse_line(f"restrict,pty {public()}").terminal
    assert not parse_line(f"no-pty,no-X11-forwarding {public()}").terminal


@pytest.mark.parametrize(
    "line", ["nonsense", "ssh-ed25519", "ssh-ed25519 AAAA", 'from="*"', "ssh-dss AAAAB3NzaC1kc3M= x"]
)
def test_nonsense_lets_nobody_in(line: str) -> None:
    with pytest.raises(NotAKey):
        parse_line(line)


def test_a_short_rsa_key_lets_nobody_in() -> None:
    short = asyncssh.generate_private_key("ssh-rsa", key_size=1024).export_public_key().decode()
    with pytest.raises(NotAKey, match="1024 bits"):
        parse_line(short)


def test_a_key_that_is_added_or_taken_away_counts_at_once(tmp_path: Path) -> None:
    first, second = public("first"), public("second, and longer")
    keys = Keys(tmp_path / "keys", first)
    keys.write(second)
    assert keys.identity(first) == ""
    assert keys.identity(second) == "second, and longer"


def test_a_file_that_is_gone_lets_nobody_in_and_is_told_once(tmp_path: Path) -> None:
    """CVE-2024-43798 of a peer: a source of credentials that is not read leaves the door open."""
    line = public()
    keys = Keys(tmp_path / "keys", line)
    keys.path.unlink()
    assert keys.identity(line) == keys.identity(line) == ""
    assert len(keys.reported) == 1
    keys.write(line)
    assert keys.identity(line) == "alice"


def test_a_file_that_others_can_write_lets_nobody_in(tmp_path: Path) -> None:
    line = public()
    keys = Keys(tmp_path / "keys", line)
    keys.path.chmod(0o666)
    assert keys.identity(line) == ""
    with pytest.raises(OSError, match=r"others can write it \(mode 0666\); run: chmod go-w"):
        AuthorizedKeys(keys.path, keys.reported.append)


@as_root
def test_a_file_of_another_user_lets_nobody_in_and_says_whose_it_is(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", public())
    os.chown(keys.path, STRANGER, -1)
    with pytest.raises(OSError, match=rf"it belongs to user {STRANGER}, and this runs as user 0; run: chown 0 "):
        keys.keys.read()
    own = tmp_path / "ssh" / "home.key"
    load_host_key(None, own)
    os.chown(own, STRANGER, -1)
    with pytest.raises(ListenFailed, match=f"the host key {own} belongs to user {STRANGER}.*chown 0 {own}"):
        load_host_key(None, own)


def test_a_file_that_is_too_large_says_so(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys", public())
    keys.write("#" * LARGEST)
    with pytest.raises(OSError, match=f"it is too large: {LARGEST + 1} bytes, and {LARGEST} are the most"):
        keys.keys.read()


def test_a_damaged_key_lets_nobody_in_and_the_others_count(tmp_path: Path) -> None:
    line = public()
    keys = Keys(tmp_path / "keys", line)
    keys.write(damaged_rsa_line(), damaged_ecdsa_line(), line)
    assert keys.identity(line) == "alice"
    assert keys.reported == [
        f"line 2 of {keys.path} lets nobody in: its key cannot be read: Invalid EC key.",
        f"line 1 of {keys.path} lets nobody in: its key cannot be read: can't convert negative int to unsigned",
    ]


@hypothesis.given(
    at=strategies.lists(strategies.integers(4, 400), min_size=1, max_size=4), byte=strategies.binary(min_size=4)
)
@hypothesis.settings(max_examples=300, deadline=None)
@pytest.mark.parametrize("kind", ["ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_whatever_is_damaged_in_a_line_is_told_as_such(kind: str, at: list[int], byte: bytes) -> None:
    algorithm, blob, _ = SAMPLES[kind].split()
    data = bytearray(base64.b64decode(blob))
    for place, value in zip(at, byte, strict=False):
        data[place % len(data)] = value
    with suppress(NotAKey):
        parse_line(f"{algorithm} {base64.b64encode(data).decode()} alice")


def test_a_host_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    own = tmp_path / "ssh" / "home.key"
    made = load_host_key(None, own)
    assert own.stat().st_mode & 0o777 == 0o600
    assert load_host_key(None, own).get_fingerprint() == made.get_fingerprint()


def test_a_host_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "ssh" / "home.key"
    load_host_key(None, own)
    own.chmod(0o644)
    for given in (None, own):
        with pytest.raises(ListenFailed, match="others can read the host key"):
            load_host_key(given, own)


def test_a_host_key_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_private_key())
    path.chmod(0o600)
    with pytest.raises(ListenFailed, match="not ssh-ed25519"):
        load_host_key(path, tmp_path)
    path.write_text("nonsense")
    with pytest.raises(ListenFailed, match="cannot be used"):
        load_host_key(path, tmp_path)
    with pytest.raises(ListenFailed, match="No such file"):
        load_host_key(tmp_path / "none", tmp_path)
