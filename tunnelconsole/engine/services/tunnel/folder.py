"""A folder as a web service: its files, and lists of what is in it.

Nothing outside of the folder is served, also not through a symbolic link, and nothing whose name begins with a dot but
``.well-known`` (RFC 8615): such names are of settings and histories. The file system is read in threads, because a slow
disk must hold up nobody else.
"""

from __future__ import annotations

import html
import mimetypes
import os
import re
import stat
import time
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from tunnelconsole.engine.wire.http.answer import status_page
from tunnelconsole.engine.wire.http.head import serialize

MAX_LISTED: Final = 10_000
"""Names in a list: what a browser still shows at once."""

DATE_STEP: Final = 1.0
"""Seconds between two dates that a head can tell apart."""

INDEX: Final = "index.html"
"""The file that stands for its folder."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<h1>{title}</h1>
<ul>
{items}
</ul>
</html>
"""


class Answer(NamedTuple):
    """A response: ``first`` with its head, and what there is of ``file`` from where it stands."""

    first: bytes
    file: BinaryIO | None = None
    length: int = 0
    """Bytes of the file that belong to it."""


class Folder:
    """A folder whose files may be read by whoever visits.

    :param root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def answer(self, method: str, target: str, values: Mapping[str, str]) -> Answer:
        """The answer to a request; blocks while the file system is read.

        :param target: a path with its query.
        :param values: of the request's head, by name in lower case.
        """
        if method not in ("GET", "HEAD"):
            return Answer(status_page(405, "this folder can only be read", fields=[("Allow", "GET, HEAD")]))
        path, mark, query = target.partition("?")
        try:
            found = self._find(path)
            if not found.is_dir():
                if path.endswith("/"):
                    raise FileNotFoundError
                return _file(method, found, values)
            if not path.endswith("/"):
                # One slash: with two, what follows would be another host.
                return _elsewhere(method, f"/{path.strip('/')}/{mark}{query}")
            index = found / INDEX
            return _file(method, self._inside(index), values) if index.is_file() else _listed(method, path, found)
        except PermissionError:
            return Answer(status_page(403, "this may not be read", body=method != "HEAD"))
        except (OSError, ValueError):
            return Answer(status_page(404, "there is no such file here", body=method != "HEAD"))

    def _find(self, path: str) -> Path:
        """The file or folder that a path means.

        :raises OSError: there is none, or none that may be served.
        """
        names: list[str] = []
        for part in path.split("/"):  # RFC 3986, section 5.2.4
            name = os.fsdecode(unquote_to_bytes(part))
            if name == "..":
                names = names[:-1]
            elif name not in ("", "."):
                names.append(name)
        if not path.startswith("/") or any("/" in name or _is_hidden(name) for name in names):
            raise FileNotFoundError
        return self._inside(self._root.joinpath(*names))

    def _inside(self, path: Path) -> Path:
        """The file itself, where links lead to.

        :raises OSError: there is none, or it lies outside of the folder.
        """
        real, root = path.resolve(strict=True), self._root.resolve(strict=True)
        if not real.is_relative_to(root) or any(map(_is_hidden, real.relative_to(root).parts)):
            raise FileNotFoundError
        return real


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name != ".well-known"


def _elsewhere(method: str, place: str) -> Answer:
    return Answer(status_page(301, f"it is at {place}", fields=[("Location", place)], body=method != "HEAD"))


def _listed(method: str, path: str, folder: Path) -> Answer:
    """A list of what is in a folder."""
    with os.scandir(folder) as entries:
        names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries if not _is_hidden(entry.name)]
    names.sort(key=lambda name: (not name.endswith("/"), name.lower()))
    shown = [("../", "../")] if path.strip("/") else []
    shown += [(quote(os.fsencode(name)), name) for name in names[:MAX_LISTED]]
    items = [
        f'<li><a href="{html.escape(link if link == "../" else f"./{link}")}">{html.escape(name)}</a>'
        for link, name in shown
    ]
    if len(names) > MAX_LISTED:
        items.append(f"<li>and {len(names) - MAX_LISTED} more")
    title = html.escape(unquote_to_bytes(path).decode("utf-8", "replace"))
    page = _PAGE.format(title=title, items="\n".join(items)).encode("utf-8", "replace")
    lines = ["Content-Type: text/html; charset=utf-8", f"Content-Length: {len(page)}", "Cache-Control: no-store"]
    return Answer(serialize("HTTP/1.1 200 OK", lines) + (page if method == "GET" else b""))


def _file(method: str, path: Path, values: Mapping[str, str]) -> Answer:
    """A file, a part of it, or that it is as the visitor has it."""
    # Not to wait for whoever would write to a named pipe.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        lines = [f"ETag: {tag}", f"Last-Modified: {formatdate(status.st_mtime, usegmt=True)}", "Accept-Ranges: bytes"]
        if _is_same(values, tag, status.st_mtime):
            file.close()
            return Answer(serialize("HTTP/1.1 304 Not Modified", lines))
        first_line, begin, length = "HTTP/1.1 200 OK", 0, status.st_size
        part = _part(values, status.st_size) if method == "GET" and _same_still(values, tag, status.st_mtime) else None
        if part is not None:
            begin, length = part
            if not length:
                file.close()
                fields = [("Content-Range", f"bytes */{status.st_size}")]
                return Answer(status_page(416, "the file has no such part", fields=fields, body=method != "HEAD"))
            first_line = "HTTP/1.1 206 Partial Content"
            lines.append(f"Content-Range: bytes {begin}-{begin + length - 1}/{status.st_size}")
        lines += [f"Content-Type: {_type_of(path)}", "X-Content-Type-Options: nosniff", f"Content-Length: {length}"]
        first = serialize(first_line, lines)
        if method == "HEAD":
            file.close()
            return Answer(first)
        file.seek(begin)
    except BaseException:
        file.close()
        raise
    return Answer(first, file, length)


def _is_same(values: Mapping[str, str], tag: str, modified: float) -> bool:
    """Whether the visitor has the file already (RFC 9110, section 13.2.2)."""
    if (tags := values.get("if-none-match")) is not None:
        return tags.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in tags.split(","))
    if (since := values.get("if-modified-since")) is not None:
        date = _date(since)
        return date is not None and int(modified) <= date
    return False


def _same_still(values: Mapping[str, str], tag: str, modified: float) -> bool:
    """Whether the file is the one of which the visitor has a part (RFC 9110, section 13.1.5), if it says which that is.

    A date counts only once the file can no longer change without the date doing so too (section 8.8.2.2).
    """
    known = values.get("if-range")
    if known is None or known == tag:
        return True
    return _date(known) == int(modified) and time.time() - modified > DATE_STEP


def _date(text: str) -> float | None:
    """The Unix seconds of a date in a head; None when it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _part(values: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """Where the one part that is asked for begins, and its length, 0 for none; None for the whole file."""
    found = _RANGE.fullmatch(values.get("range", "").replace(" ", ""))
    if found is None:
        return None
    first, last = found.groups()
    if first:
        begin, end = int(first), min(int(last or size), size - 1)
        if last and int(last) < begin:
            return None
    elif last:
        begin, end = max(0, size - int(last)), size - 1
    else:
        return None
    return begin, max(0, end - begin + 1)


def _type_of(path: Path) -> str:
    kind, coding = mimetypes.guess_type(path.name)
    if kind is None or coding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
