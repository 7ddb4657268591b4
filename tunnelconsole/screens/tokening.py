"""What an operator does with tokens: makes, changes, rotates, disables and revokes them."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from tunnelconsole.control import figures
from tunnelconsole.control.messages import Done, Reply, Request
from tunnelconsole.control.tokens import ChangeToken, GetTokens, RevokeToken, RotateToken, TokenMade, TokenRow, Tokens
from tunnelconsole.errors import TunnelConsoleError
from tunnelconsole.screens import token_form
from tunnelconsole.screens.auditing import Auditing
from tunnelconsole.screens.places import Place
from tunnelconsole.screens.token import TokenPane
from tunnelconsole.screens.widgets.form import Field, Form
from tunnelconsole.screens.widgets.secret import SecretShown

KEEP_IT = (
    "This is the only time that it is shown. Keep it in a file that only its user can read: clients read it with "
    "token_file, a jump client with secret_file, the commands with --token-file."
)

OVERLAP_HINT = (
    "For how long the secret of now stays good beside the new one, such as 24h or 30m; 0s: no longer, at once"
)


def token_cost(row: TokenRow) -> str:
    """What ending the sessions of a token cuts."""
    if not row.sessions:
        return "cuts nobody off, nobody is in with it"
    channels = f", {figures.counted(row.channels, 'channel')}" if row.channels else ""
    return f"cuts {figures.counted(row.sessions, 'session')}{channels}"


class Tokening(Auditing):
    """The frame, with the actions about tokens too; its parameters are those of ``Frame``."""

    def arrive(self) -> None:
        if isinstance(self.pane, TokenPane):
            self.pane.begin()
        super().arrive()

    def action_tokens(self, name: str = "") -> None:
        """Shows the tokens, or the one that is named."""
        self.go(Place("token", token=name) if name else Place("tokens"))

    def _token(self) -> str:
        """The name of the token that is opened, or selected; empty, and told, where there is none."""
        pane = self.pane
        row = pane.row if isinstance(pane, TokenPane) else pane.table.selected if pane.table is not None else None
        if isinstance(row, TokenRow):
            return row.name
        self.tell("No token is selected", hint="c makes one")
        return ""

    def _do_with_token(self, doing: Coroutine[Any, Any, None]) -> None:
        self.run_worker(doing, name="token")

    async def _token_answer(self, request: Request) -> Reply | None:
        """The engine's answer; None, and told, where it refuses or is away."""
        try:
            return await self.ask(request)
        except TunnelConsoleError as error:
            self.tell(error.message, hint=error.hint, trouble=True)
            return None

    async def _token_now(self, name: str) -> TokenRow | None:
        """A token as it is now, however old what is shown may be; None, and told, where it is gone."""
        reply = await self._token_answer(GetTokens(name))
        return reply.rows[0] if isinstance(reply, Tokens) and reply.rows else None

    async def _token_carry_out(self, request: Request) -> None:
        reply = await self._token_answer(request)
        if isinstance(reply, Done):
            self.tell(_sentence(reply.text))

    # the secret

    def _show_secret(self, made: TokenMade) -> None:
        """Shows a secret, once; nothing but its screen keeps it."""
        title = _sentence(made.text) + ". Its secret is:"
        self.push_screen(SecretShown(title, made.secret, [KEEP_IT], partial(self._copy_secret, made.name)))

    def _copy_secret(self, name: str, secret: str) -> None:
        self.run_worker(self.copy_unseen(f"the secret of {name}", secret), name="copy")

    # making and changing

    def action_create_token(self, name: str = "") -> None:
        """Asks for everything about a new token."""
        title = "A new token. What is left empty is not limited."
        self.push_screen(Form(title, [], token_form.fields_to_create(name), "make it", self._create_token))

    def action_create_token_named(self, name: str = "") -> None:
        """Asks for everything about a new token of this name."""
        self.action_create_token(name)

    def _create_token(self, form: Form, given: dict[str, str]) -> None:
        self._do_with_token(self._token_made_by(form, token_form.creation(given)))

    def action_change_token(self) -> None:
        """Asks what is to be changed of the selected token."""
        if name := self._token():
            self._do_with_token(self._ask_changes(name))

    async def _ask_changes(self, name: str) -> None:
        row = await self._token_now(name)
        if row is None:
            return
        title = f"Change {name}. Limits hold at once for who is in; another right ends its sessions."
        self.push_screen(
            Form(title, [], token_form.fields_to_change(row), "change it", partial(self._change_token, row))
        )

    def _change_token(self, row: TokenRow, form: Form, given: dict[str, str]) -> None:
        asked = token_form.change(row, given)
        if asked == ChangeToken(row.name):
            form.done()
            self.tell(f"Token {row.name} is as it was")
        else:
            self._do_with_token(self._token_changed_by(form, asked))

    async def _token_changed_by(self, form: Form, asked: ChangeToken) -> None:
        if token_form.cuts(asked):
            now = await self._token_now(asked.name)
            sentence = "Who is in with it is out, because a right by which it was let in changes, and may come again."
            if now is not None and now.sessions and not await self.confirm(
                f"Change token {asked.name}: {token_cost(now)}", [sentence], "Change it"
            ):  # fmt: skip
                form.resume()
                return
        reply = await self._token_sent(form, asked)
        if isinstance(reply, Done):
            self.tell(_sentence(reply.text))

    def action_rotate_token(self) -> None:
        """Asks for how long the secret of the selected token stays good, and gives it another."""
        if name := self._token():
            self.action_rotate_token_named(name)

    def action_rotate_token_named(self, name: str) -> None:
        """Gives a token another secret; asks first."""
        self._do_with_token(self._ask_overlap(name))

    async def _ask_overlap(self, name: str) -> None:
        row = await self._token_now(name)
        if row is None:
            return
        sentence = (
            "It gets another secret, which is shown once. The one of now stays good for a while; then "
            f"who is in by it is out. With 0s that is at once, and {token_cost(row)}."
        )
        field = Field("overlap", "overlap", OVERLAP_HINT, token_form.FIRST_OVERLAP, token_form.FIRST_OVERLAP)
        self.push_screen(
            Form(f"Rotate token {name}", [sentence, ""], [field], "rotate it", partial(self._rotate_token, name))
        )

    def _rotate_token(self, name: str, form: Form, given: dict[str, str]) -> None:
        self._do_with_token(self._token_made_by(form, RotateToken(name, given["overlap"] or None)))

    async def _token_made_by(self, form: Form, request: Request) -> None:
        reply = await self._token_sent(form, request)
        if isinstance(reply, TokenMade):
            self._show_secret(reply)

    async def _token_sent(self, form: Form, request: Request) -> Reply | None:
        """The engine's answer to a form, which is closed; None where it refuses, which the form says."""
        try:
            reply = await self.ask(request)
        except TunnelConsoleError as error:
            form.refuse(token_form.refused_field(error.message), token_form.in_words(error.message), error.hint)
            return None
        form.done()
        return reply

    # ending

    def action_toggle_token(self) -> None:
        """Makes the selected token good for nothing, which asks first, or good again."""
        if name := self._token():
            self._do_with_token(self._toggle_token(name))

    async def _toggle_token(self, name: str) -> None:
        row = await self._token_now(name)
        if row is None:
            return
        if row.state in ("disabled", "used"):
            await self._token_carry_out(ChangeToken(name, disabled=False))
            return
        sentence = "Nobody gets in with it until it is enabled again."
        if await self.confirm(f"Disable token {name}: {token_cost(row)}", [sentence], "Disable it"):
            await self._token_carry_out(ChangeToken(name, disabled=True))

    def action_revoke_token(self) -> None:
        """Takes the selected token away for good; asks first."""
        if name := self._token():
            self.action_revoke_token_named(name)

    def action_revoke_token_named(self, name: str) -> None:
        """Takes a token away for good; asks first."""
        self._do_with_token(self._revoke_token(name))

    async def _revoke_token(self, name: str) -> None:
        row = await self._token_now(name)
        if row is None:
            return
        sentence = "It is gone for good, and its secret opens nothing any more."
        if await self.confirm(f"Revoke token {name}: {token_cost(row)}", [sentence], "Revoke it"):
            await self._token_carry_out(RevokeToken(name))
            if self.place == Place("token", token=name) and self.trail.depth:
                self.depart()
                self.trail.back()
                self.arrive()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
