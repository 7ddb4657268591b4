"""The second factor of the SSH server: a one-time code or a password, once a key was proven and not before."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from ssh_logins import Person, Stranger, Talk
from ssh_peers import SSHDesk, line_of, new_key, ssh_desk
from tunnelconsole.engine.events import PeerRefused
from tunnelconsole.engine.services.ssh.events import FactorWithoutKey, LoggedIn, WrongAnswer
from tunnelconsole.engine.services.ssh.factor_rules import LONGEST_ANSWER, read_base32
from tunnelconsole.engine.services.ssh.proof import MOST_WRONG_HERE
from tunnelconsole.engine.services.ssh.second_factor import CODE, MOST_WRONG, PASSWORD, STEP, WINDOW, SecondFactors
from tunnelconsole.engine.settings import Secret
from tunnelconsole.engine.units import Duration
from waiting import until

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
"""Of the test vectors (RFC 6238, appendix B)."""

VECTORS = {
    59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924",
    2000000000: "69279037", 20000000000: "65353130",
}  # fmt: skip
"""Times and codes of eight digits, of which the last six are the code of six."""

NOW = 1_900_000_005.0
"""A time five seconds into a step."""

SECRET, HUSH = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "correct horse"  # not those of anybody


def code_at(moment: float, secret: str = SECRET) -> str:
    """What an authenticator app shows."""
    return TOTP(read_base32(secret), 6, SHA1(), 30).generate(int(moment)).decode()


def code(ahead: int = 0) -> str:
    """The code of now, or one that comes ``ahead`` steps later."""
    return code_at(time.time() + ahead * STEP)


def wrong_code() -> str:
    """Six digits that are no code of these minutes."""
    near = {code(ahead) for ahead in range(-3, 4)}
    return next(digits for digits in map("{:06}".format, range(10)) if digits not in near)


class Watch:
    """Both clocks of the factors, moved by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now
        self.factors = SecondFactors({"alice": SECRET}, {"bob": HUSH}, lambda: self.now, lambda: self.now - 7.0)

    def judge(self, answer: str, identity: str = "alice") -> bool:
        """Whether it is right."""
        return self.factors.judge(identity, answer) == ""


@pytest.mark.parametrize(("moment", "digits"), VECTORS.items())
def test_codes_are_those_of_the_standard(moment: int, digits: str) -> None:
    factors = SecondFactors({"alice": RFC_SECRET}, {}, lambda: float(moment))
    assert factors.judge("alice", digits[-6:]) == ""


@pytest.mark.parametrize(("steps", "right"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_one_step_off(steps: int, right: bool) -> None:
    assert Watch().judge(code_at(NOW + steps * STEP)) is right


def test_a_code_may_be_typed_in_two_groups() -> None:
    shown = code_at(NOW)
    assert Watch().judge(f" {shown[:3]} {shown[3:]}\n")


@pytest.mark.parametrize("answer", ["", "0", "1234567", "١٢٣٤٥٦", "abcdef", "\ud800", "\0" * 6])
def test_what_is_no_code_is_wrong_and_no_more(answer: str) -> None:
    watch = Watch()
    assert watch.factors.judge("alice", answer) == "a wrong one-time code"


def test_a_code_is_good_once_and_older_ones_are_good_no_more() -> None:
    watch = Watch()
    assert watch.judge(code_at(NOW))
    assert "used already" in watch.factors.judge("alice", code_at(NOW))
    assert "used already" in watch.factors.judge("alice", code_at(NOW - STEP))
    assert watch.judge(code_at(NOW + STEP))


def test_a_used_code_is_not_good_again_when_the_clock_is_set_back() -> None:
    watch = Watch()
    assert watch.judge(code_at(NOW))
    watch.now -= STEP
    assert not watch.judge(code_at(NOW))


def test_passwords_are_compared_as_a_whole_and_by_their_letters() -> None:
    watch = Watch()
    assert watch.judge(HUSH, "bob")
    for answer in ("", HUSH[:-1], HUSH + " ", HUSH.upper()):
        assert watch.factors.judge("bob", answer) == "a wrong password"
        assert watch.judge(HUSH, "bob")
    composed = SecondFactors({}, {"bob": "caf\u00e9"})
    assert composed.judge("bob", "cafe\u0301") == ""


def test_who_has_no_factor_gets_in_with_no_answer() -> None:
    for answer in ("", HUSH, code_at(NOW)):
        assert not Watch().judge(answer, "carol")
    assert Watch().factors.kind("carol") == ""


def test_who_has_which_factor_is_known() -> None:
    factors = Watch().factors
    assert (factors.kind("alice"), factors.kind("bob")) == (CODE, PASSWORD)
    assert factors.named() == {"alice": "one_time_codes", "bob": "passwords"}
    assert factors
    assert not SecondFactors({}, {})


@pytest.mark.parametrize(("identity", "right"), [("alice", code_at(NOW + WINDOW)), ("bob", HUSH)])
def test_after_five_wrong_answers_the_sixth_is_refused_until_the_first_is_ten_minutes_old(
    identity: str, right: str
) -> None:
    watch = Watch()
    for _ in range(MOST_WRONG):
        assert watch.factors.locked(identity) == ""
        assert not watch.judge("wrong", identity)
        watch.now += 1
    expected = f"{identity} gave 5 wrong answers within 10 minutes, and is asked again in {WINDOW - MOST_WRONG:.0f} s"
    assert watch.factors.locked(identity) == expected
    assert watch.factors.judge(identity, right) == expected
    watch.now = NOW + WINDOW - 0.5
    assert watch.factors.locked(identity).endswith("in 1 s")
    watch.now = NOW + WINDOW
    assert watch.factors.locked(identity) == ""
    assert watch.judge(right, identity)


def test_a_used_code_is_no_guess_and_locks_nobody_out() -> None:
    watch = Watch()
    assert watch.judge(code_at(NOW))
    for _ in range(2 * MOST_WRONG):
        assert not watch.judge(code_at(NOW))
    assert watch.factors.locked("alice") == ""
    assert watch.judge(code_at(NOW + STEP))


def test_wrong_answers_of_one_identity_are_no_others() -> None:
    watch = Watch()
    for _ in range(MOST_WRONG):
        watch.judge("wrong")
    assert watch.factors.locked("alice")
    assert watch.judge(HUSH, "bob")
    assert watch.factors.locked("alice")


def test_a_right_answer_clears_the_wrong_ones_before_it() -> None:
    watch = Watch()
    for _ in range(3):
        for _ in range(MOST_WRONG - 1):
            watch.judge("wrong", "bob")
        assert watch.judge(HUSH, "bob")


def test_an_answer_while_locked_prolongs_nothing() -> None:
    watch = Watch()
    for _ in range(MOST_WRONG):
        watch.judge("wrong", "bob")
    watch.now += WINDOW - 1
    watch.judge("wrong", "bob")
    watch.now += 1
    assert watch.judge(HUSH, "bob")


@pytest.mark.parametrize(
    ("codes", "passwords"), [({"alice": "GEZDGNBV"}, {}), ({}, {"bob": ""}), ({"bob": SECRET}, {"bob": HUSH})]
)
def test_tables_that_nothing_has_checked_are_refused(codes: dict[str, str], passwords: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\.(alice|bob): "):
        SecondFactors(codes, passwords)


@pytest.mark.parametrize("text", [SECRET, SECRET.lower(), "gezd gnbv-gy3t qojq gezd gnbv gy3t qojq", f"{SECRET}===="])
def test_a_secret_may_be_written_as_it_is_shown(text: str) -> None:
    assert read_base32(text) == b"1234567890" * 2


@pytest.mark.parametrize("text", ["", "GEZDGNBVGY3TQOJQ", "0189" * 8, "é" * 32, "A" * 27])
def test_a_secret_that_is_none_is_told_without_it(text: str) -> None:
    with pytest.raises(ValueError, match="make one with") as caught:
        read_base32(text)
    assert not text or text not in str(caught.value)


class Desk:
    """A server at which alice has codes and bob a password, and people who come to it."""

    def __init__(self, desk: SSHDesk) -> None:
        self.desk = desk
        self.bob = new_key("bob")
        desk.write_keys(line_of(desk.alice), line_of(self.bob), line_of(desk.viola))

    def connect(self, key: asyncssh.SSHKey, person: Person, **options: Any) -> Any:
        given = {"client_factory": lambda: person, "preferred_auth": "publickey,keyboard-interactive"}
        return self.desk.connect(key, **(given | options))

    async def lets_in(self, key: asyncssh.SSHKey, *answers: str) -> None:
        """Somebody logs in, and leaves."""
        async with self.connect(key, Person(*answers)) as connection:
            assert (await connection.run("status")).exit_status == 0
        await until(lambda: self.desk.sessions == [])

    async def refuses(self, key: asyncssh.SSHKey, person: Person, **options: Any) -> None:
        """Somebody is turned away."""
        with pytest.raises((asyncssh.Error, OSError)):
            async with self.connect(key, person, **options):
                raise AssertionError("it was let in")
        await until(lambda: not self.desk.server.logins)
        assert self.desk.sessions == []

    async def hears(self, script: Callable[[Talk], Awaitable[None]], let_in: Sequence[str] = ()) -> None:
        """Hears somebody out who says what a script has.

        :param let_in: who has a session in the end.
        """
        stranger = Stranger(script)
        with suppress(asyncssh.Error, OSError):
            async with self.connect(self.bob, Person(), client_keys=None, client_factory=lambda: stranger):
                await until(lambda: self.desk.sessions == list(let_in))
        if stranger.failed is not None:
            raise stranger.failed
        assert stranger.has_finished
        assert {told.split()[0] for told in self.desk.told(LoggedIn)} == set(let_in)
        await until(lambda: not self.desk.server.logins and not self.desk.sessions)

    @property
    def refused(self) -> list[str]:
        """Why, one after the other, from whom left out."""
        return [sentence.partition(": ")[2] for sentence in self.desk.told(PeerRefused)]

    @property
    def wrong(self) -> list[str]:
        """The wrong answers that were told of, from where left out."""
        return [sentence.partition(": ")[2] for sentence in self.desk.told(WrongAnswer)]


def factors(**more: Any) -> dict[str, Any]:
    """The settings of such a server."""
    return {"one_time_codes": {"alice": Secret(SECRET)}, "passwords": {"bob": Secret(HUSH)}} | more


async def test_a_key_and_a_code_let_in_and_the_key_alone_does_not(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.refuses(running.alice, Person())
        assert desk.refused == ["alice gave no one-time code"]
        person = Person(code())
        async with desk.connect(running.alice, person) as connection:
            assert (await connection.run("status")).exit_status == 0
            assert running.sessions == ["alice"]
        assert person.prompts == [[("One-time code: ", False)]]
        assert person.ways == [b"keyboard-interactive"]
        (told,) = running.told(LoggedIn)
        assert told.startswith("alice logged in from ")


async def test_a_key_and_a_password_let_in(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        person = Person(HUSH)
        async with desk.connect(desk.bob, person):
            await until(lambda: running.sessions == ["bob"])
        assert person.prompts == [[("Password: ", False)]]


async def test_a_wrong_answer_is_asked_for_again_and_told_of_without_it(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.lets_in(desk.bob, "swordfish", HUSH)
        assert running.told(WrongAnswer)[0].startswith("refused bob from 127.0.0.1:")
        assert desk.wrong == ["a wrong password"]
        await desk.lets_in(running.alice, wrong_code(), code())
        assert desk.wrong == ["a wrong password", "a wrong one-time code"]


async def test_the_third_wrong_answer_in_a_connection_ends_it(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        person = Person(*["wrong"] * MOST_WRONG_HERE, HUSH)
        await desk.refuses(desk.bob, person)
        assert len(person.prompts) == MOST_WRONG_HERE
        assert desk.refused == ["bob gave 3 wrong answers in one connection"]


async def test_the_sixth_guess_is_refused_though_it_is_right_and_nobody_is_asked(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.refuses(desk.bob, Person("wrong", "wrong", "wrong"))
        sixth = Person("wrong", "wrong", HUSH)
        await desk.refuses(desk.bob, sixth)
        assert len(sixth.prompts) == MOST_WRONG - MOST_WRONG_HERE
        later = Person(HUSH)
        await desk.refuses(desk.bob, later)
        assert later.prompts == []
        assert len(desk.wrong) == MOST_WRONG
        assert desk.refused[-1].startswith("bob gave 5 wrong answers within 10 minutes, and is asked again in ")
        await desk.lets_in(running.alice, code())


async def test_guesses_in_many_connections_at_once_are_no_more(tmp_path: Path) -> None:
    """All are asked before the first answers."""
    people: list[Together] = []

    class Together(Person):
        async def kbdint_challenge_received(self, *about: Any) -> list[str]:
            answer = await super().kbdint_challenge_received(*about)
            await until(lambda: all(person.prompts for person in people))
            return answer

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        people += [Together("wrong") for _ in range(MOST_WRONG + 3)]
        await asyncio.gather(*(desk.refuses(desk.bob, person) for person in people))
        assert len(desk.wrong) == MOST_WRONG
        assert sum("gave 5 wrong answers within" in reason for reason in desk.refused) == 3


async def test_a_code_that_was_used_does_not_let_in_again(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        used = code()
        await desk.lets_in(running.alice, used)
        await desk.refuses(running.alice, Person(used))
        assert desk.wrong == ["a one-time code that was used already, or is older than one that was"]
        await desk.lets_in(running.alice, code(ahead=1))


async def test_who_has_no_factor_stays_out_unless_the_key_alone_is_enough(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        person = Person("")
        await desk.refuses(running.viola, person)
        assert person.prompts == []
        assert desk.refused == ["the key of viola has no one-time code or password here"]
        running.write_keys(f"key-only {line_of(running.viola)}", f'key-only,role="view" {line_of(running.alice)}')
        await desk.lets_in(running.viola)
        await desk.lets_in(running.alice)


async def test_without_factors_a_question_is_never_asked(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as running:
        person = Person(code())
        await Desk(running).refuses(new_key("mallory"), person)
        assert person.ways == []
        await Desk(running).lets_in(running.alice, code())


async def test_no_question_is_asked_before_a_key_is_proven(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        assert await talk.asks() == "refused"
        assert await talk.proves(new_key("mallory")) == "refused"
        assert await talk.asks() == "refused"
        talk.username = "alice"
        assert await talk.asks() == "refused"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script)
        assert running.sessions == []
        assert desk.wrong == []


async def test_an_answer_without_a_question_breaks_the_connection(tmp_path: Path) -> None:
    async def before_a_key(talk: Talk) -> None:
        assert await talk.asks() == "refused"
        assert await talk.answers(code()) == "cut off"

    async def after_a_key(talk: Talk) -> None:
        assert await talk.proves(running.alice) == "go on"
        assert await talk.answers(code()) == "cut off"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(before_a_key)
        await desk.hears(after_a_key)
        assert desk.refused == ["Authentication not in progress"] * 2


@pytest.mark.parametrize(
    "packet",
    [
        (90, String("session"), UInt32(0), UInt32(65536), UInt32(32768)),
        (80, String("tcpip-forward"), Boolean(True), String("127.0.0.1"), UInt32(0)),
    ],
)
async def test_half_a_proof_opens_nothing(tmp_path: Path, packet: tuple[Any, ...]) -> None:
    async def script(talk: Talk) -> None:
        assert await talk.proves(running.alice) == "go on"
        talk.connection._auth_complete = True  # else it would keep the packet until then
        talk.connection.send_packet(*packet)
        talk.connection._auth_complete = False
        assert await talk.hears() == "cut off"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script)
        (why,) = desk.refused
        assert "before authentication was complete" in why


async def test_a_proof_is_void_under_another_user_name(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        assert await talk.proves(running.alice) == "go on"
        talk.username = "root"
        assert await talk.asks() == "refused"
        talk.username = "ops"
        assert await talk.asks() == "refused"
        assert await talk.proves(running.alice) == "go on"
        assert await talk.asks() == "asked One-time code: "
        talk.username = "root"
        assert await talk.asks() == "refused"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script)
        assert running.sessions == []


async def test_another_key_is_not_taken_once_one_is_proven(tmp_path: Path) -> None:
    """Who has stolen alice's key and has bob's and his password has not both of anybody but bob."""

    async def script(talk: Talk) -> None:
        assert await talk.proves(running.alice) == "go on"
        assert await talk.proves(desk.bob) == "refused"
        assert await talk.asks() == "asked One-time code: "
        assert await talk.answers(HUSH) == "refused"
        assert await talk.asks() == "asked One-time code: "
        assert await talk.proves(desk.bob) == "refused"
        assert await talk.asks() == "asked One-time code: "
        assert await talk.answers(code()) == "let in"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script, let_in=["alice"])
        assert desk.wrong == ["a wrong one-time code"]


async def test_under_another_user_name_another_key_needs_its_own_answer(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        assert await talk.proves(running.alice) == "go on"
        assert await talk.asks() == "asked One-time code: "
        talk.username = "root"
        assert await talk.proves(desk.bob) == "go on"
        assert await talk.asks() == "asked Password: "
        assert await talk.answers(code()) == "refused"
        assert await talk.asks() == "asked Password: "
        assert await talk.answers(HUSH) == "let in"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script, let_in=["bob"])


async def test_saying_it_all_at_once_lets_nobody_in_with_halves(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        for _ in range(3):
            talk.username = "ops"
            await talk.say_key(running.alice)
            await talk.say_ask()
            talk.username = "root"
            await talk.say_key(desk.bob)
            await talk.say_ask()
            talk.say_answer(code())
        heard = [await talk.hears() for _ in range(4)]  # of the last answer at the latest
        while heard[-1] not in {"refused", "cut off"}:
            heard.append(await talk.hears())
        assert "let in" not in heard
        assert "asked One-time code: " in heard

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script)
        assert running.told(LoggedIn) == []


async def test_wrong_answers_count_on_under_another_user_name(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        heard = []
        for name, key in (("a", desk.bob), ("b", running.alice), ("c", desk.bob)):
            talk.username = name
            assert await talk.proves(key) == "go on"
            assert (await talk.asks()).startswith("asked")
            heard.append(await talk.answers("wrong"))
        assert heard == ["refused", "refused", "cut off"]

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script)
        assert len(desk.wrong) == MOST_WRONG_HERE


@pytest.mark.parametrize("answer", [[], ["", HUSH], [HUSH, HUSH], ["9" * 200_000], ["x" * (LONGEST_ANSWER + 1)]])
async def test_what_is_no_answer_is_a_wrong_one(tmp_path: Path, answer: list[str]) -> None:
    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.refuses(desk.bob, Person(answer))
        (told,) = desk.wrong
        assert told in {"a wrong password", f"an answer of more than {LONGEST_ANSWER} bytes"}
        await desk.lets_in(desk.bob, HUSH)


async def test_more_answers_than_there_are_break_the_connection(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        assert await talk.proves(desk.bob) == "go on"
        assert await talk.asks() == "asked Password: "
        assert await talk.answers(HUSH, number=2**32 - 1) == "cut off"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script)
        assert desk.refused == ["Incomplete packet"]


@pytest.mark.parametrize("option", [None, 'expiry-time="20200101"', 'from="10.0.0.0/8"'])
async def test_a_key_that_is_taken_away_while_somebody_types_opens_nothing(tmp_path: Path, option: str | None) -> None:
    async def script(talk: Talk) -> None:
        assert await talk.proves(desk.bob) == "go on"
        assert await talk.asks() == "asked Password: "
        running.write_keys(line_of(running.alice) if option is None else f"{option} {line_of(desk.bob)}")
        assert await talk.answers(HUSH) == "refused"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script)
        assert desk.refused == ["the key of bob opens nothing any more"]


async def test_the_role_is_that_of_the_moment_of_the_answer(tmp_path: Path) -> None:
    async def script(talk: Talk) -> None:
        assert await talk.proves(desk.bob) == "go on"
        assert await talk.asks() == "asked Password: "
        running.write_keys(f'role="view" {line_of(desk.bob)}')
        assert await talk.answers(HUSH) == "let in"

    async with ssh_desk(tmp_path, **factors()) as running:
        desk = Desk(running)
        await desk.hears(script, let_in=["bob"])
        assert " as view with " in running.told(LoggedIn)[0]


async def test_who_proves_a_key_and_says_nothing_more_is_turned_away_in_time(tmp_path: Path) -> None:
    class Silent(Person):
        async def kbdint_auth_requested(self) -> str | None:
            await self.connection.wait_closed()
            return None

    async with ssh_desk(tmp_path, **factors(login_timeout=Duration(0.5))) as running:
        desk = Desk(running)
        await desk.refuses(desk.bob, Silent())
        assert desk.refused == ["bob gave no password within 0.5 s"]


async def test_a_factor_of_somebody_without_a_key_is_told_of(tmp_path: Path) -> None:
    passwords = {"bob": Secret(HUSH), "carol": Secret("another")}
    async with ssh_desk(tmp_path, **factors(passwords=passwords)) as running:
        file = running.keys
        expected = [f"passwords names {name}, and no key in {file} is theirs" for name in ("bob", "carol")]
        assert running.told(FactorWithoutKey) == expected
        desk = Desk(running)
        running.write_keys(line_of(desk.bob))
        running.server.refresh()
        assert running.told(FactorWithoutKey)[2:] == [
            f"one_time_codes names alice, and no key in {file} is theirs", expected[1],
        ]  # fmt: skip
