"""Shards behind a URL: what a pattern names there, the version of each, and its bytes. The only door to fsspec."""

from __future__ import annotations

import errno
import glob
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..basics.errors import UserError, first_line
from ..basics.secrets import lacks_credentials, redacted

T = TypeVar("T")

TRIES = 4
"""How often a request is made before it is given up."""
BACK_OFF = 1.0
"""Seconds before the second try; twice as many before each further one."""
CONNECT, SILENCE = 10, 60
"""Seconds an http server gets to take the connection, and to send the next bytes. A whole transfer may take its time."""


class Unavailable(UserError):
    """A source that cannot be read now."""

    def __init__(self, url: str, what: str, reason: str, may_pass: bool):
        super().__init__(
            f"{redacted(url)} cannot be {what}: {reason}. Check address, connection and credentials, or download the shard "
            "and give its path."
        )
        self.reason = reason
        """Why, in one line."""
        self.may_pass = may_pass
        """Whether it is the network's or the server's trouble, not this file's."""


@dataclass(frozen=True)
class Version:
    """What tells one state of a source from another, as far as its store says it."""

    size: int | None = None
    """Bytes."""
    etag: str | None = None
    """The store's mark of the contents."""
    last_modified: str | None = None
    """When it was written, as the store puts it."""

    def differs(self, other: Version) -> bool:
        """Whether these are two states: by size and mark, or, where one side has no mark, by size and time."""
        names = ("size", "etag") if self.etag and other.etag else ("size", "last_modified")
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        return any(a != b for a, b in pairs if a is not None and b is not None)


@dataclass(frozen=True)
class Source:
    """A URL with the file system it belongs to. May be used by several threads."""

    url: str
    """As the user gave it."""
    filesystem: Any
    """fsspec's."""
    path: str
    """What ``filesystem`` calls it."""

    @classmethod
    def at(cls, url: str) -> Source:
        """UserError for a protocol that is not known or whose driver is not installed, and for an address without its
        credentials."""
        if lacks_credentials(url):
            raise UserError(
                f"{url} was written here without its credentials. Give the whole address again, on the command line or in a "
                "recipe of your own: data.train=…, and validation and held-out shards likewise."
            )
        filesystem, path = _filesystem(url)
        filesystem.invalidate_cache()  # a listing made earlier in this process may be out of date
        return cls(url, filesystem, path)

    def shards(self) -> list[str]:
        """URLs of the shards meant: itself, or, sorted, what its glob matches or the ``*.tar`` of its folder.

        UserError where none match, and for a glob or folder over http(s), which cannot list.
        """
        if _is_http(self.url):
            place = re.split("[?#]", self.url)[0]
            if place.endswith("/") or re.search(r"://[^/]*/.*[*[]", place):
                raise UserError(
                    f"{redacted(self.url)} asks for a list of files, which http(s) servers do not give. Name the shards with "
                    "braces (train-{000000..000007}.tar), or every URL."
                )
            return [self.url]
        pattern = self.path
        if not glob.has_magic(pattern):
            if pattern.endswith(".tar") or not self._patiently("looked up", lambda: self.filesystem.isdir(pattern)):
                return [self.url]
            pattern += "/*.tar"
        names = sorted(self._patiently("listed", lambda: self.filesystem.glob(pattern)))
        if not names:
            raise UserError(f"No shards match {redacted(self.url)}: no file there has a name like {pattern}.")
        # The file system's names lack the protocol and, in some, the host.
        url = self.url.rstrip("/")
        if url.endswith(self.path):
            return [url.removesuffix(self.path) + name for name in names]
        return [self.filesystem.unstrip_protocol(name) for name in names]

    def version(self, tries: int = TRIES) -> Version:
        """The version of the file now; Unavailable when it cannot be told."""
        return self._patiently("asked for its version", self._version, tries)

    def download(self, to: Path) -> Version:
        """Writes the file to ``to`` and returns its version.

        Unavailable if it does not come whole (``to`` may hold a part then), OSError if the disk is full.
        """

        def transfer() -> Version:
            version = self._version()  # before: what is replaced meanwhile shows as changed the next time
            self.filesystem.get_file(self.path, str(to))
            size = to.stat().st_size
            if version.size not in (None, size):
                raise OSError(f"got {size} of {version.size} bytes")
            return version

        return self._patiently("fetched", transfer)

    def _version(self) -> Version:
        try:
            info = self.filesystem.info(self.path)
        except FileNotFoundError as error:
            if _is_http(self.url) and error.__cause__:
                raise error.__cause__ from None  # fsspec's http calls every trouble so, with the true one behind it
            raise

        def first(*names: str) -> str | None:  # every store has its own words
            return next((str(info[name]) for name in names if info.get(name)), None)

        modified = first("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")
        return Version(info.get("size"), first("ETag", "etag", "blob_id"), modified)

    def _patiently(self, what: str, action: Callable[[], T], tries: int = TRIES) -> T:
        """What ``action`` returns, begun again after errors that may pass; Unavailable when it keeps failing."""
        for attempt in range(1, tries + 1):
            try:
                return action()
            except Exception as error:  # each driver has exceptions of its own
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                may_pass = _may_pass(error)
                if attempt == tries or not may_pass:
                    raise Unavailable(self.url, what, _reason(error, self.url), may_pass) from None
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
        raise ValueError(f"tries is {tries}; it must be at least 1")


def is_remote(name: str) -> bool:
    """Whether a shard is fetched rather than read where it lies: ``name`` begins with a protocol."""
    return re.match(r"[a-z][a-z0-9+.-]*://", name) is not None


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _filesystem(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it) of ``url``."""
    import fsspec

    protocol = url.partition("://")[0]
    if protocol not in fsspec.available_protocols():
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise UserError(f"{redacted(url)}: the protocol {protocol}:// is not known. Known are {known}.")
    try:
        if not _is_http(url):
            return fsspec.core.url_to_fs(url)
        import aiohttp

        # aiohttp by itself ends a transfer after five minutes and passes over the proxy that the environment names;
        # fsspec by itself quotes the URL anew, which may break its signature.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
        client = {"timeout": timeout, "trust_env": True}
        return fsspec.filesystem(protocol, encoded=True, client_kwargs=client), url
    except ImportError as error:
        package = getattr(error.__cause__ or error, "name", None)
        remedy = f"pip install {package}" if package else str(error)
        raise UserError(f"{redacted(url)} cannot be read: the driver of {protocol}:// is missing. {remedy}") from None
    except Exception as error:  # each driver has exceptions of its own
        raise UserError(f"{redacted(url)} cannot be read: {_reason(error, url)}.") from None


def _status(error: BaseException) -> int | None:
    """The status of the server's answer, if there was one."""
    return getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)


def _may_pass(error: BaseException) -> bool:
    if status := _status(error):
        return status >= 500 or status in (408, 429)
    return not isinstance(error, (FileNotFoundError, PermissionError, NotImplementedError, ValueError, TypeError))


def _reason(error: BaseException, url: str) -> str:
    """Why, in one line that holds no secret."""
    if status := _status(error):
        return f"the server answers {status} {getattr(error, 'message', '')}".strip()
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return redacted(first_line(error).replace(url, redacted(url))).rstrip(".")
