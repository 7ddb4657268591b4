"""What the commands print of requests that came through tunnels."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import click
import msgspec

from tunnelconsole.cli.tables import Column, print_json, print_line
from tunnelconsole.control.bodies import field_text, text_of
from tunnelconsole.control.client import ControlClient
from tunnelconsole.control.exchange_rows import ExchangeRow, HttpMessage
from tunnelconsole.control.figures import brief, count, counted, date_and_time, size
from tunnelconsole.control.messages import (
    MIN_INTERVAL,
    Exchange,
    GetExchange,
    GetExchanges,
    ReplayExchange,
    Watch,
)
from tunnelconsole.errors import EngineUnreachable
from tunnelconsole.screens.spans import clean

REQUESTS: tuple[Column[ExchangeRow], ...] = (
    Column("ID", lambda row, now: row.id),
    Column("TIME", lambda row, now: date_and_time(row.started)),
    Column("SERVICE", lambda row, now: row.service),
    Column("STATUS", lambda row, now: str(row.status or "-")),
    Column("TOOK", lambda row, now: brief(row.seconds) if row.seconds is not None else "under way", right=True),
    Column("REQUEST", lambda row, now: size(row.request_bytes), right=True),
    Column("ANSWER", lambda row, now: size(row.response_bytes), right=True),
    Column("VISITOR", lambda row, now: row.peer),
    Column("METHOD", lambda row, now: row.method),
    Column("HOST", lambda row, now: row.host),
    Column("PATH", lambda row, now: row.target),
    Column("ERROR", lambda row, now: row.error, shown=lambda rows: any(row.error for row in rows)),
)

WIDTHS = (6, 19, 12, 6, 9, 7, 7, 21, 6, 20, 1, 0)
"""Cells of the columns where requests are printed one by one, as they come: nobody knows the widest yet."""

Connect = Callable[[], Awaitable[ControlClient]]


async def follow_requests(connect: Connect, question: GetExchanges, *, as_json: bool) -> None:
    """Prints the requests that ``question`` asks for, and then each one once it is over, until the engine goes.

    :raises RequestRefused: there is no such service.
    :raises EngineUnreachable: the engine went away, or there is none.
    """
    async with await connect() as asking, await connect() as watching:
        await asking.ask(GetExchanges(question.service, limit=0))  # tells whether there is such a service
        most: int | None = question.limit
        async for update in watching.watch(Watch(["exchanges"], MIN_INTERVAL, question.service)):
            if update.exchanges is None:
                continue
            if update.exchanges.dropped:
                click.echo(f"{counted(update.exchanges.dropped, 'request')} missed: they came too fast", err=True)
            over = [row for row in update.exchanges.rows if row.seconds is not None]
            for row in over if most is None else over[-most:]:
                _print_row(row, as_json=as_json)
            most = None


def _print_row(row: ExchangeRow, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(row))
    else:
        print_line(REQUESTS, row, WIDTHS)


async def replayed(connect: Connect, key: str) -> Exchange:
    """Sends a request again; what became of it, once it is over.

    :raises RequestRefused: it cannot be sent again, or what became of it is not kept any more.
    :raises EngineUnreachable: the engine went away, or there is none.
    """
    async with await connect() as asking, await connect() as watching:
        found = _exchange(await asking.ask(ReplayExchange(key)))
        if found.row.seconds is not None:
            return found
        async for update in watching.watch(Watch(["exchanges"], MIN_INTERVAL, found.row.service)):
            if update.exchanges is not None and (update.exchanges.rows or update.exchanges.dropped):
                found = _exchange(await asking.ask(GetExchange(found.row.id)))
            if found.row.seconds is not None:
                break
        return found


def _exchange(reply: object) -> Exchange:
    if not isinstance(reply, Exchange):
        raise EngineUnreachable("the engine answered something else than it was asked", "restart the engine")
    return reply


def print_exchange(exchange: Exchange, *, as_json: bool) -> None:
    """Prints all that is kept of a request: for people the facts, then both messages as they went."""
    if as_json:
        document = msgspec.to_builtins(exchange)
        del document["type"]  # tells messages of the control socket apart; here there is only one
        print_json(document)
        return
    row = exchange.row
    facts = {
        "request": f"{row.id}, through {row.service}" + (f", a replay of {row.replay_of}" if row.replay_of else ""),
        "url": exchange.url,
        "visitor": row.peer,
        "time": date_and_time(row.started),
        "took": _took(row),
        "error": row.error,
    }
    for name, value in facts.items():
        if value:
            click.echo(f"{name:<9}{clean(value)}")
    for message, total in ((exchange.request, row.request_bytes), (exchange.response, row.response_bytes)):
        if message is not None:
            click.echo()
            _print_message(message, total)


def _took(row: ExchangeRow) -> str:
    if row.seconds is None:
        return f"under way for {brief(time.time() - row.started)}"
    return brief(row.seconds) + (f", {brief(row.seconds_to_answer)} to the answer" if row.seconds_to_answer else "")


def _print_message(message: HttpMessage, total: int) -> None:
    click.echo(clean(message.first_line))
    for name, value in message.fields:
        click.echo(f"{clean(name)}: {clean(field_text(value))}")
    if not total:
        return
    click.echo()
    text = text_of(message)
    if text is None:
        click.echo(f"[{counted(total, 'byte')} that are no text; --json has them]")
        return
    for line in text.splitlines():
        click.echo(clean(line.replace("\t", "    ")))
    if message.cut:
        click.echo(f"[the first {count(len(message.body))} bytes; more came, and is not kept]")
