"""The register of tokens: who proves one, until when, what is taken from it, and what the store has of it."""

from __future__ import annotations

import asyncio
import math
import secrets
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loopback import hears, told
from tunnelconsole.engine.bus import Bus
from tunnelconsole.engine.engine import Engine
from tunnelconsole.engine.events import Crashed, Event, StoreFailed
from tunnelconsole.engine.keeping import SAVE_INTERVAL
from tunnelconsole.engine.meters import Meters
from tunnelconsole.engine.sessions import Session, Sessions
from tunnelconsole.engine.tokens import keyring as keyring_module
from tunnelconsole.engine.tokens import register as tokens_module
from tunnelconsole.engine.tokens.events import TokenChanged, TokenOver, TokensUnreadable
from tunnelconsole.engine.tokens.grants import Grant, Token
from tunnelconsole.engine.tokens.register import MAX_SECRETS, RESERVED_NAMES, Tokens
from tunnelconsole.engine.tokens.rights import TokenRights, decode_rights
from tunnelconsole.engine.tokens.seal import KEY_FILE, KEY_LENGTH, SealBroken, TokenSeal
from tunnelconsole.engine.wire import token_proof
from tunnelconsole.engine.wire.errors import NotAllowed
from tunnelconsole.engine.wire.token_proof import Proof, is_secret, make_proof, secret_id
from tunnelconsole.errors import RequestRefused
from waiting import until

NOW = 1_800_000_000.0
DAY = 86_400.0
MIDNIGHT = NOW - NOW % DAY + DAY


class Clock:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Register:
    """A register with a clock of its own, and sessions by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.bus = Bus()
        self.tokens = Tokens(self.bus, folder, self.clock)
        self.tokens.load(())
        self.sessions = Sessions(self.bus, Meters())
        self.ended: list[tuple[str, str]] = []

    def enter(self, secret: str) -> Session:
        """Somebody comes in with a token."""
        grant = self.tokens.bear(secret)
        assert grant is not None
        session: Session

        def end(reason: str) -> None:
            self.ended.append((session.id, reason))
            self.sessions.close_session(session, reason)

        session = self.sessions.open_session("edge", "relay-server", "192.0.2.1:5", "", end, grant=grant)
        self.tokens.used(grant)
        return session

    def told(self, kind: type[Event]) -> list[str]:
        return [record.event.text() for record in self.bus.recent() if isinstance(record.event, kind)]


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path)


def rights(**given: Any) -> TokenRights:
    return decode_rights({"kinds": ["relay"], **given})


def is_known(tokens: Tokens, secret: str) -> bool:
    return tokens.bear(secret) is not None


# Who proves one


async def test_a_secret_and_a_proof_of_it_show_the_same_token_and_no_other(register: Register) -> None:
    secret = await register.tokens.create("alice", rights())
    await register.tokens.create("bob", rights())
    nonces = bytes(16), bytes(range(16))
    shown = register.tokens.prove(Proof(secret_id(secret), *nonces, make_proof(secret, *nonces)))
    assert shown == register.tokens.bear(secret)
    assert shown is not None
    assert shown.identity == "alice"
    assert is_secret(secret)


async def test_a_wrong_secret_and_a_wrong_name_are_nobody_alike(register: Register) -> None:
    secret = await register.tokens.create("alice", rights())
    nonces = bytes(16), bytes(16)
    forged = Proof(secret_id(secret), *nonces, make_proof("tc_" + "A" * 43, *nonces))
    unknown = Proof(bytes(16), *nonces, bytes(32))
    assert register.tokens.prove(forged) is None
    assert register.tokens.prove(unknown) is None
    assert not is_known(register.tokens, secret[:-1] + ("A" if secret[-1] != "A" else "B"))


async def test_an_id_that_is_not_known_is_compared_as_one_that_is(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One time for a wrong name and a wrong secret: the same comparison is made for both."""
    compared: list[int] = []
    compare = token_proof.is_key

    def counting(verifier: bytes, key: bytes) -> bool:
        compared.append(len(verifier))
        return compare(verifier, key)

    monkeypatch.setattr(keyring_module, "is_key", counting)
    secret = await register.tokens.create("alice", rights())
    register.tokens.bear(secret)
    register.tokens.bear("tc_" + "A" * 43)
    register.tokens.bear("no token at all")
    assert compared == [32, 32, 32]


@pytest.mark.parametrize("name", RESERVED_NAMES)
async def test_none_is_called_what_those_are_called_who_have_none(register: Register, name: str) -> None:
    with pytest.raises(RequestRefused, match="that is what others are called"):
        await register.tokens.create(name, rights())


@pytest.mark.parametrize("expires", [math.nan, math.inf, -math.inf])
async def test_no_token_expires_at_no_time(register: Register, expires: float) -> None:
    with pytest.raises(RequestRefused):
        await register.tokens.create("alice", rights(), expires=expires)
    await register.tokens.create("bob", rights())
    with pytest.raises(RequestRefused, match="token bob cannot expire"):
        await register.tokens.change("bob", expires=expires)


async def test_one_for_a_single_use_waits_until_its_use_can_be_written(register: Register) -> None:
    """Else it could be used again after a crash."""
    once = register.tokens.bear(await register.tokens.create("alice", rights(one_time=True)))
    often = register.tokens.bear(await register.tokens.create("bob", rights()))
    assert once is not None
    assert often is not None
    register.tokens.noting = False
    assert "cannot be written down" in register.tokens.refuses(once, "relay", "192.0.2.1:5")
    assert register.tokens.refuses(often, "relay", "192.0.2.1:5") == ""
    register.tokens.noting = True
    assert register.tokens.refuses(once, "relay", "192.0.2.1:5") == ""


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "-a", "a\nb", "é", "a" * 64, "../a", "a;b"])
async def test_a_name_is_one_plain_word(register: Register, name: str) -> None:
    with pytest.raises(RequestRefused, match="is not a name for a token"):
        await register.tokens.create(name, rights())


async def test_a_name_is_taken_once(register: Register) -> None:
    await register.tokens.create("alice", rights())
    with pytest.raises(RequestRefused, match="there is a token alice already"):
        await register.tokens.create("alice", rights())


async def test_there_is_an_end_to_how_many_there_may_be(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_TOKENS", 1)
    await register.tokens.create("alice", rights())
    with pytest.raises(RequestRefused, match="no room for more"):
        await register.tokens.create("bob", rights())


# What is taken from it


async def test_one_that_is_revoked_is_nobody_and_its_sessions_end_at_once(register: Register) -> None:
    secret = await register.tokens.create("alice", rights())
    session = register.enter(secret)
    assert await register.tokens.revoke("alice") == "token alice revoked, and 1 session of it ended"
    assert register.ended == [(session.id, "its token was revoked")]
    assert not is_known(register.tokens, secret)
    with pytest.raises(RequestRefused, match="there is no token alice"):
        register.tokens.find("alice")


async def test_one_that_is_disabled_lets_nobody_in_until_it_is_enabled(register: Register) -> None:
    secret = await register.tokens.create("alice", rights())
    session = register.enter(secret)
    await register.tokens.change("alice", disabled=True)
    grant = register.tokens.bear(secret)
    assert grant is not None
    assert grant.refuses("relay", "192.0.2.1:5", NOW) == "the token is disabled"
    assert register.ended == [(session.id, "the token is disabled")]
    await register.tokens.change("alice", disabled=False)
    assert not grant.refuses("relay", "192.0.2.1:5", NOW)


async def test_one_that_expires_ends_its_sessions_at_the_next_tick_and_says_so_once(register: Register) -> None:
    secret = await register.tokens.create("alice", rights(), expires=NOW + 60)
    session = register.enter(secret)
    register.tokens.tick()
    assert not register.ended
    register.clock.now += 60
    register.tokens.tick()
    register.tokens.tick()
    assert register.ended == [(session.id, "the token has expired")]
    assert register.told(TokenOver) == ["token alice: the token has expired; 1 sessions ended"]


async def test_the_bytes_of_a_day_are_counted_over_all_sessions_and_begin_anew_at_midnight(register: Register) -> None:
    secret = await register.tokens.create("alice", rights(bytes_per_day=1000))
    register.clock.now = MIDNIGHT - 10
    session = register.enter(secret)
    token = register.tokens.find("alice")
    token.count(999, register.clock.now)
    register.tokens.tick()
    assert not register.ended
    token.count(1, register.clock.now)
    register.tokens.tick()
    assert register.ended == [(session.id, "the token's 1000 bytes of today are used up")]
    grant = register.tokens.bear(secret)
    assert grant is not None
    assert grant.refuses("relay", "192.0.2.1:5", MIDNIGHT - 1)
    assert not grant.refuses("relay", "192.0.2.1:5", MIDNIGHT)


async def test_one_for_a_single_use_lets_in_once_and_that_session_goes_on(register: Register) -> None:
    secret = await register.tokens.create("alice", rights(one_time=True))
    register.enter(secret)
    register.tokens.tick()
    grant = register.tokens.bear(secret)
    assert grant is not None
    assert grant.refuses("relay", "192.0.2.1:5", NOW) == "the token was for one use, and has been used"
    assert not grant.no_room(new_session=False, new_channel=True)
    assert not register.ended


@pytest.mark.parametrize(
    ("limits", "asked", "reason"),
    [
        ({"sessions": 1}, {"new_session": True, "new_channel": False}, "limit of 1 sessions"),
        ({"channels": 1}, {"new_session": False, "new_channel": True}, "limit of 1 channels"),
    ],
)
async def test_a_limit_counts_over_all_who_are_in_with_it(
    register: Register, limits: dict[str, int], asked: dict[str, bool], reason: str
) -> None:
    secret = await register.tokens.create("alice", rights(**limits))
    grant = register.tokens.bear(secret)
    assert grant is not None
    session = register.enter(secret)
    register.tokens.find("alice").channels += 1
    assert reason in grant.no_room(**asked)
    register.sessions.close_session(session)
    register.tokens.find("alice").channels -= 1
    assert not grant.no_room(**asked)


async def test_a_limit_changes_for_who_is_in_and_a_right_puts_them_out(register: Register) -> None:
    secret = await register.tokens.create("alice", rights(rate="1MB/s"))
    session = register.enter(secret)
    pace = register.tokens.find("alice").pace
    await register.tokens.change("alice", rights=rights(rate="2MB/s"))
    assert register.tokens.find("alice").pace is pace
    assert not register.ended
    await register.tokens.change("alice", rights=rights(rate="2MB/s", ports=["7001"]))
    assert register.ended == [(session.id, "the rights of its token changed")]


async def test_a_change_to_what_it_is_already_changes_nothing(register: Register) -> None:
    secret = await register.tokens.create("alice", rights())
    register.enter(secret)
    assert await register.tokens.change("alice", rights=rights(), disabled=False) == "token alice is as it was"
    assert not register.ended


# Rotation


async def test_both_secrets_are_good_while_they_overlap_and_who_came_by_the_old_one_is_out_then(
    register: Register,
) -> None:
    old = await register.tokens.create("alice", rights())
    by_old = register.enter(old)
    new = await register.tokens.rotate("alice", overlap=60)
    by_new = register.enter(new)
    assert is_known(register.tokens, old)
    register.clock.now += 60
    assert not is_known(register.tokens, old)
    register.tokens.tick()
    assert [session for session, _ in register.ended] == [by_old.id]
    assert by_new.id in register.sessions.sessions
    assert is_known(register.tokens, new)


async def test_without_an_overlap_the_old_one_is_good_for_nothing_at_once(register: Register) -> None:
    old = await register.tokens.create("alice", rights())
    session = register.enter(old)
    new = await register.tokens.rotate("alice", overlap=0)
    assert not is_known(register.tokens, old)
    assert is_known(register.tokens, new)
    assert [who for who, _ in register.ended] == [session.id]


async def test_a_rotation_shortens_an_overlap_and_never_lengthens_it(register: Register) -> None:
    old = await register.tokens.create("alice", rights())
    await register.tokens.rotate("alice", overlap=60)
    await register.tokens.rotate("alice", overlap=3600)
    register.clock.now += 60
    assert not is_known(register.tokens, old)


async def test_there_is_an_end_to_the_secrets_of_one_token(register: Register) -> None:
    await register.tokens.create("alice", rights())
    for _ in range(MAX_SECRETS - 1):
        await register.tokens.rotate("alice")
    with pytest.raises(RequestRefused, match=f"has {MAX_SECRETS} secrets already"):
        await register.tokens.rotate("alice")


# Sealed ones, for jump servers


async def test_the_secret_itself_is_kept_sealed_for_jump_servers_alone(register: Register, tmp_path: Path) -> None:
    secret = await register.tokens.create("alice", rights(kinds=["jump"]))
    await register.tokens.create("bob", rights(kinds=["relay"]))
    (sealed,) = register.tokens.keyring.kept_of(register.tokens.find("alice"))
    (unsealed,) = register.tokens.keyring.kept_of(register.tokens.find("bob"))
    assert unsealed.sealed is None
    assert sealed.sealed is not None
    assert secret.encode() not in sealed.sealed
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o077 == 0
    assert list(register.tokens.keyring.jump_secrets.values()) == [secret.encode()]


async def test_a_sealed_secret_opens_with_its_key_and_under_its_name_alone(tmp_path: Path) -> None:
    seal = TokenSeal(tmp_path)
    sealed = seal.seal("tc_secret", b"its name")
    assert TokenSeal(tmp_path).open(sealed, b"its name") == "tc_secret"
    with pytest.raises(SealBroken):
        seal.open(sealed, b"another name")
    with pytest.raises(SealBroken):
        seal.open(sealed[:-1], b"its name")
    with pytest.raises(SealBroken):
        TokenSeal(tmp_path / "other").open(sealed, b"its name")


async def test_a_key_file_that_holds_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(OSError, match=rf"{KEY_FILE} holds no key: it has 5 bytes and not 32"):
        TokenSeal(tmp_path).seal("tc_secret", b"its name")


async def test_without_its_key_a_token_works_but_at_jump_servers_and_is_said_so(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        secret = await engine.node.tokens.create("alice")
    (tmp_path / KEY_FILE).unlink()
    async with Engine(state_dir=tmp_path) as engine:
        await engine.node.tokens.keyring.open_sealed()
        assert is_known(engine.node.tokens, secret)
        assert not engine.node.tokens.keyring.jump_secrets
        await hears(engine, TokensUnreadable, "token alice cannot be used with jump servers")


# The store


def kept(folder: Path) -> list[tuple[str, int]]:
    """Names, and how many secrets each has, as another program sees them."""
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        return database.execute(
            "SELECT name, count(id) FROM tokens LEFT JOIN token_secrets ON token = name GROUP BY name ORDER BY name"
        ).fetchall()


async def test_they_are_kept_at_once_and_are_the_same_after_a_restart(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        secret = await engine.node.tokens.create("alice", rights(hosts=["*.example.com"]), expires=2_000_000_000.0)
        assert kept(tmp_path) == [("alice", 1)]
        second = await engine.node.tokens.rotate("alice")
        assert kept(tmp_path) == [("alice", 2)]
    async with Engine(state_dir=tmp_path) as engine:
        token = engine.node.tokens.find("alice")
        assert (token.rights, token.expires) == (rights(hosts=["*.example.com"]), 2_000_000_000.0)
        assert is_known(engine.node.tokens, secret)
        assert is_known(engine.node.tokens, second)
        await engine.node.tokens.revoke("alice")
        assert kept(tmp_path) == []
    async with Engine(state_dir=tmp_path) as engine:
        assert not is_known(engine.node.tokens, secret)


async def test_neither_a_secret_nor_what_proves_it_is_in_the_file(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        secret = await engine.node.tokens.create("alice")
    for file in tmp_path.iterdir():  # noqa: ASYNC240 - the engine has ended
        data = file.read_bytes()
        assert secret.encode() not in data
        assert token_proof.secret_key(secret) not in data


async def test_a_used_token_is_used_after_a_restart_and_the_bytes_of_a_day_go_on(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        secret = await engine.node.tokens.create("alice", rights(one_time=True, bytes_per_day=1000))
        grant = engine.node.tokens.bear(secret)
        assert grant is not None
        engine.node.tokens.used(grant)
        grant.token.count(5, NOW)
        engine.node.tokens.tick()
    async with Engine(state_dir=tmp_path) as engine:
        token = engine.node.tokens.find("alice")
        assert token.used_up
        assert token.day_bytes == 5


async def test_that_one_was_used_is_written_at_once(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        grant = engine.node.tokens.bear(await engine.node.tokens.create("alice", rights(one_time=True)))
        assert grant is not None
        engine.node.tokens.used(grant)
        async with asyncio.timeout(SAVE_INTERVAL / 2):
            await until(lambda: stored(tmp_path, "SELECT disabled FROM tokens") == [(1,)])


def stored(folder: Path, query: str) -> list[tuple[object, ...]]:
    """What another program sees in the file."""
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        return database.execute(query).fetchall()


def full(engine: Engine) -> None:
    """Has the disk be full, for all that the store can tell."""
    database = engine._keeper._store._database
    assert database is not None
    database.execute("PRAGMA max_page_count = 1")


async def test_one_that_cannot_be_kept_is_not_made(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        full(engine)
        with pytest.raises(RequestRefused, match=r"token alice cannot be kept, so it was not made: .* full"):
            await _fill(engine.node.tokens, "alice")
        assert "alice" not in {token.name for token in engine.node.tokens}


async def _fill(tokens: Tokens, name: str) -> None:
    """Makes tokens until the disk is full, the last of them of this name."""
    for number in range(100):
        await tokens.create(f"t{number}", rights(hosts=[f"h{each}.example.com" for each in range(200)]))
        await tokens.create(name, rights(hosts=[f"h{each}.example.com" for each in range(200)]))
        await tokens.revoke(name)


async def test_one_is_revoked_also_when_that_cannot_be_written_and_the_answer_says_so(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        tokens = engine.node.tokens
        secret = await tokens.create("alice", rights())

        async def keep() -> str:
            return "the disk is full"

        kept_by, tokens.keep = tokens.keep, keep
        said = await tokens.revoke("alice")
        assert "cannot be written yet, and is lost if the engine ends before it can: the disk is full" in said
        assert not is_known(tokens, secret)
        tokens.keep = kept_by
    assert kept(tmp_path) == []


async def test_where_the_store_cannot_be_read_nobody_proves_anything_and_no_token_is_made(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").mkdir()
    async with Engine(state_dir=tmp_path) as engine:
        await hears(engine, StoreFailed)
        with pytest.raises(NotAllowed, match="the tokens cannot be read at the moment"):
            engine.node.tokens.bear("tc_" + "A" * 43)
        with pytest.raises(RequestRefused, match="cannot be read"):
            await engine.node.tokens.create("alice")


async def test_one_whose_rights_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        await engine.node.tokens.create("alice", rights())
        secret = await engine.node.tokens.create("bob", rights())
    with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as database:
        database.execute("""UPDATE tokens SET rights = '{"kinds":["telepathy"]}' WHERE name = 'alice'""")
        database.commit()
    async with Engine(state_dir=tmp_path) as engine:
        await hears(engine, TokensUnreadable, "token alice cannot be used")
        assert is_known(engine.node.tokens, secret)
        with pytest.raises(RequestRefused):
            engine.node.tokens.find("alice")


async def test_a_file_that_was_removed_gets_all_of_them_again(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        await engine.node.tokens.create("alice", rights())
        for name in ("state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        engine.node.meters.service("edge").add(1, 1)
        await engine._keeper._save()  # fails, because the file is gone
        assert told(engine, StoreFailed)
        await engine._keeper._save()
        assert kept(tmp_path) == [("alice", 1)]


async def test_a_copy_from_before_a_token_was_revoked_does_not_bring_it_back(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite3"
    async with Engine(state_dir=tmp_path) as engine:
        revoked, stays = await engine.node.tokens.create("alice", rights()), await engine.node.tokens.create("bob")
        with closing(sqlite3.connect(file)) as database, closing(sqlite3.connect(tmp_path / "copy")) as copy:
            database.backup(copy)
        await engine.node.tokens.revoke("alice")
        for name in ("state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "copy").rename(file)
        engine.node.meters.service("edge").add(1, 1)
        await engine._keeper._save()  # fails, because it is another file
        assert told(engine, StoreFailed)
        await engine._keeper._save()
        assert kept(tmp_path) == [("bob", 1)]
    async with Engine(state_dir=tmp_path) as engine:
        assert not is_known(engine.node.tokens, revoked)
        assert is_known(engine.node.tokens, stays)


async def test_what_happens_to_a_token_is_told_without_its_secret(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        secrets = [await engine.node.tokens.create("alice", rights()), await engine.node.tokens.rotate("alice")]
        await engine.node.tokens.change("alice", disabled=True)
        await engine.node.tokens.revoke("alice")
        assert [event.text() for event in told(engine, TokenChanged)] == [
            "token alice created",
            "token alice rotated",
            "token alice disabled",
            "token alice revoked",
        ]
        everything = _all_texts(record.event for record in engine.node.bus.recent())
    assert not any(secret in everything for secret in secrets)


def _all_texts(events: Iterable[Event]) -> str:
    return "\n".join(f"{event.text()} {msgspec.json.encode(event).decode()}" for event in events)


def test_two_grants_of_one_secret_are_the_same_and_those_of_two_are_not() -> None:
    token = Token("alice", TokenRights(), NOW)
    assert Grant(token, b"one") == Grant(token, b"one")
    assert len({Grant(token, b"one"), Grant(token, b"one"), Grant(token, b"two")}) == 2


async def test_a_rotation_that_cannot_be_kept_leaves_the_old_secret_good(register: Register) -> None:
    old = await register.tokens.create("alice", rights())

    async def keep() -> str:
        register.clock.now += 1
        register.tokens.tick()  # which drops what has no overlap, before it is known that nothing was written
        return "the disk is full"

    register.tokens.keep = keep
    with pytest.raises(RequestRefused, match="cannot be kept: the disk is full; the old one stays good"):
        await register.tokens.rotate("alice", overlap=0)
    register.tokens.tick()
    assert is_known(register.tokens, old)
    assert len(register.tokens.keyring.kept_of(register.tokens.find("alice"))) == 1


async def test_one_that_is_revoked_while_it_is_rotated_stays_revoked(
    register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register.tokens.create("alice", rights(kinds=["jump"]))
    make = register.tokens.keyring.make

    async def slow(rights: TokenRights) -> Any:
        made = await make(rights)
        await register.tokens.revoke("alice")
        return made

    monkeypatch.setattr(register.tokens.keyring, "make", slow)
    with pytest.raises(RequestRefused, match="has been revoked meanwhile"):
        await register.tokens.rotate("alice")
    assert not register.tokens.keyring.jump_secrets
    assert len(register.tokens) == 0


async def test_a_tick_looks_at_those_in_use_alone(register: Register) -> None:
    for number in range(100):
        await register.tokens.create(f"t{number}", rights(bytes_per_day=1))
    register.enter(await register.tokens.create("alice", rights(bytes_per_day=1)))
    assert len(register.tokens._in_use) == 1
    register.tokens.find("alice").count(1, NOW)
    register.tokens.tick()
    register.tokens.tick()
    assert register.ended
    assert not register.tokens._in_use


# Who has proved one, and is not in yet


@pytest.mark.parametrize("taken", ["revoked", "rotated"])
async def test_who_had_proved_what_was_taken_away_since_comes_in_no_more(register: Register, taken: str) -> None:
    grant = register.tokens.bear(await register.tokens.create("alice", rights()))
    assert grant is not None
    if taken == "revoked":
        await register.tokens.revoke("alice")
    else:
        await register.tokens.rotate("alice", overlap=0)
    assert grant.refuses("relay", "192.0.2.1:5", NOW)
    assert grant.no_room(new_session=True, new_channel=False)


async def test_a_quota_that_is_spent_within_one_tick_ends_sessions_on_each_day(register: Register) -> None:
    secret = await register.tokens.create("alice", rights(bytes_per_day=1000))
    token = register.tokens.find("alice")
    for day in range(2):
        register.clock.now = MIDNIGHT + day * DAY
        session = register.enter(secret)
        token.count(1000, register.clock.now)
        register.tokens.tick()
        assert register.ended[-1] == (session.id, "the token's 1000 bytes of today are used up")
    assert len(register.told(TokenOver)) == 2


@pytest.mark.parametrize("limit", ["expiry", "quota"])
async def test_who_is_in_by_a_single_use_stays_no_longer_than_others_would(register: Register, limit: str) -> None:
    secret = await register.tokens.create("alice", rights(one_time=True, bytes_per_day=1000), expires=NOW + 60)
    session = register.enter(secret)
    if limit == "expiry":
        register.clock.now += 60
    else:
        register.tokens.find("alice").count(1000, NOW)
    register.tokens.tick()
    assert [who for who, _ in register.ended] == [session.id]
    assert len(register.told(TokenOver)) == 1


async def test_another_limit_does_not_put_out_who_is_in_by_a_single_use(register: Register) -> None:
    register.enter(await register.tokens.create("alice", rights(one_time=True)))
    await register.tokens.change("alice", rights=rights(one_time=True, rate="1MB/s"))
    assert not register.ended


async def test_a_session_that_cannot_be_ended_keeps_no_other_alive(register: Register) -> None:
    secret = await register.tokens.create("alice", rights())
    first, second = register.enter(secret), register.enter(secret)

    def broken(reason: str) -> None:
        raise OSError("it is broken")

    first.end = broken
    await register.tokens.revoke("alice")
    assert [who for who, _ in register.ended] == [second.id]
    assert "ending session" in register.told(Crashed)[0]


async def test_secrets_that_are_first_sealed_at_one_time_are_sealed_with_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, drawn = threading.Barrier(2), secrets.token_bytes

    def drawing(count: int) -> bytes:
        if count == KEY_LENGTH:
            with suppress(threading.BrokenBarrierError):
                both.wait(0.1)  # in vain, where one waits for the other
        return drawn(count)

    monkeypatch.setattr(secrets, "token_bytes", drawing)
    seal = TokenSeal(tmp_path)
    sealed = await asyncio.gather(*(asyncio.to_thread(seal.seal, f"tc_{number}", b"id") for number in range(8)))
    assert [TokenSeal(tmp_path).open(each, b"id") for each in sealed] == [f"tc_{number}" for number in range(8)]


# What the store has of it when that has failed


async def test_one_that_was_revoked_stays_away_though_another_of_its_name_could_not_be_made(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        tokens, store = engine.node.tokens, engine._keeper._store
        secret = await tokens.create("alice", rights())

        async def fails(work: object) -> None:
            raise sqlite3.OperationalError("the disk is full")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "transact", fails)
            await tokens.revoke("alice")
            with pytest.raises(RequestRefused, match="it was not made"):
                await tokens.create("alice", rights())
    assert kept(tmp_path) == []
    async with Engine(state_dir=tmp_path) as engine:
        assert not is_known(engine.node.tokens, secret)


async def test_sealed_secrets_that_come_after_a_jump_server_are_opened_for_it(tmp_path: Path) -> None:
    async with Engine(state_dir=tmp_path) as engine:
        secret = await engine.node.tokens.create("alice", rights(kinds=["jump"]))
    (tmp_path / "state.sqlite3").rename(tmp_path / "away")
    (tmp_path / "state.sqlite3").mkdir()
    async with Engine(state_dir=tmp_path) as engine:
        await engine.node.tokens.keyring.open_sealed()
        (tmp_path / "state.sqlite3").rmdir()
        (tmp_path / "away").rename(tmp_path / "state.sqlite3")
        await engine._keeper._save()
        assert list(engine.node.tokens.keyring.jump_secrets.values()) == [secret.encode()]
