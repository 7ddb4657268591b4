"""What a reload would do, in words; the command prints them, and the console asks with them."""

from __future__ import annotations

from tunnelconsole.control.figures import counted, duration
from tunnelconsole.control.steering import ReloadPreview, ServiceChange


def preview_words(preview: ReloadPreview) -> list[str]:
    """A sentence for each service and key that a reload would change; whoever is cut comes first."""
    if preview.problems:
        return preview.problems
    words = [_words(change, preview.drain) for change in preview.changes]
    if preview.engine:
        words.append(f"engine: {', '.join(preview.engine)} changes at once")
    if preview.restart:
        words.append(f"engine: {', '.join(preview.restart)} changes when the engine is started again")
    kept = f"{counted(preview.kept, 'service')} {'is kept as it is' if preview.kept == 1 else 'are kept as they are'}"
    if not words:
        words.append(f"nothing changes, {kept}")
    elif preview.kept:
        words.append(kept)
    return [*words, *(f"warning: {sentence}" for sentence in preview.warnings)]


def cost(preview: ReloadPreview) -> str:
    """What a reload ends, in a few words."""
    sessions = sum(change.sessions for change in preview.changes)
    channels = sum(change.channels for change in preview.changes)
    if not sessions and not channels:
        return "cuts nobody"
    return f"ends {counted(sessions, 'session')} with {counted(channels, 'channel')}"


def changes_something(preview: ReloadPreview) -> bool:
    """Whether a reload would do more than read files again."""
    return bool(preview.changes or preview.engine or preview.restart)


def _words(change: ServiceChange, drain: float) -> str:
    keys = f" ({', '.join(change.keys)})" if change.keys else ""
    words = f"{change.name}, a {change.kind}: {change.how}{keys}"
    if change.how == "added":
        return words
    if change.how == "changed in place":
        drain = 0.0
        if not change.sessions:
            return f"{words}, nobody is cut"
    if not change.sessions and not change.channels:
        return f"{words}, nobody is attached"
    may = f"may finish within {duration(drain)}" if drain else "is cut" if change.channels == 1 else "are cut"
    ends = f"{counted(change.sessions, 'session')} {'ends' if change.sessions == 1 else 'end'}"
    ends += f", {counted(change.channels, 'channel')} {may}" if change.channels else ""
    more = f" and {change.more:,} more" if change.more else ""
    return f"{words}, {ends}: {', '.join(change.who)}{more}" if change.who else f"{words}, {ends}"
