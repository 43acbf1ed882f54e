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
from ..basics.secrets import REMOVED, lacks_credentials, redacted

T = TypeVar("T")

TRIES = 4
"""How often a request is made before it is given up."""
BACK_OFF = 1.0
"""Seconds before the second try; twice as many before each further one."""
CONNECT, SILENCE = 10, 60
"""Seconds an http server gets to take the connection, and to send the next bytes. A whole transfer may take its time."""
MANIFEST, UPLOADING = "MANIFEST.json", "UPLOADING.json"
"""What a folder of shards holds when it is whole, and what it holds as long as it is being filled (:mod:`.remote_write`)."""
READING = "download the shard and give its path"
_HOPELESS = {
    "ClientAuthenticationError",
    "DefaultCredentialsError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "NoRegionError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RefreshError",
    "TokenRetrievalError",
}
"""Names of the drivers' errors that no second try mends, though their types do not say so."""


class Unavailable(UserError):
    """A source that cannot be read, or written, now. ``instead``: what else one can do."""

    def __init__(self, url: str, what: str, reason: str, may_pass: bool, instead: str = READING):
        super().__init__(
            f"{redacted(url)} cannot be {what}: {reason}. Check address, connection and credentials, or {instead}."
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
        if is_http(self.url):
            place = re.split("[?#]", self.url)[0]
            if place.endswith("/") or re.search(r"://[^/]*/.*[*[]", place):
                raise UserError(
                    f"{redacted(self.url)} asks for a list of files, which http(s) servers do not give. Name the shards with "
                    "braces (train-{000000..000007}.tar), or every URL."
                )
            return [self.url]
        pattern = self.path
        if not glob.has_magic(pattern):
            if pattern.endswith(".tar") or not self.patiently("looked up", lambda: self.filesystem.isdir(pattern)):
                return [self.url]
            pattern += "/*.tar"
        names = sorted(self.patiently("listed", lambda: self.filesystem.glob(pattern)))
        for folder in sorted({name.rpartition("/")[0] for name in [*names, pattern]}):
            if not glob.has_magic(folder):
                self._refuse_unfinished(folder)
        if not names:
            raise UserError(f"No shards match {redacted(self.url)}: no file there has a name like {pattern}.")
        # The file system's names lack the protocol and, in some, the host.
        url = self.url.rstrip("/")
        if url.endswith(self.path):
            return [url.removesuffix(self.path) + name for name in names]
        return [self.filesystem.unstrip_protocol(name) for name in names]

    def version(self, tries: int = TRIES) -> Version:
        """The version of the file now; Unavailable when it cannot be told."""
        return self.patiently("asked for its version", self._version, tries)

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

        return self.patiently("fetched", transfer)

    def inside(self, name: str) -> Source:
        """The file ``name`` in this folder, which is not one over http(s)."""
        return Source(f"{self.url}/{name}", self.filesystem, f"{self.path}/{name}")

    def read(self, most: int) -> bytes | None:
        """Its first ``most`` bytes as they are now; None where there is no such file."""

        def action() -> bytes | None:
            self.filesystem.invalidate_cache()
            try:
                with self.filesystem.open(self.path, "rb") as stream:
                    return stream.read(most)
            except FileNotFoundError as error:
                # Stores answer 403 for what is not there to those who may not list.
                if is_http(self.url) and error.__cause__ and _status(error.__cause__) not in (403, 404, 410):
                    raise error.__cause__ from None
                return None

        return self.patiently("read", action)

    def _refuse_unfinished(self, folder: str) -> None:
        """UserError if an upload into ``folder`` has begun and not ended: a part of a set looks like a set."""

        def unfinished() -> bool:
            there = self.filesystem.exists
            return there(f"{folder}/{UPLOADING}") and not there(f"{folder}/{MANIFEST}")

        if self.patiently("looked up", unfinished):
            raise UserError(
                f"{self.url} is not whole: an upload into {folder} has not ended ({UPLOADING} is there and {MANIFEST} is not). "
                "Wait for it, or repeat the command that was uploading: what is there is not sent again."
            )

    def _version(self) -> Version:
        try:
            info = self.filesystem.info(self.path)
        except FileNotFoundError as error:
            if is_http(self.url) and error.__cause__:
                raise error.__cause__ from None  # fsspec's http calls every trouble so, with the true one behind it
            raise

        def first(*names: str) -> str | None:  # every store has its own words
            return next((str(info[name]) for name in names if info.get(name)), None)

        modified = first("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")
        return Version(info.get("size"), first("ETag", "etag", "blob_id"), modified)

    def patiently(self, what: str, action: Callable[[], T], tries: int = TRIES, instead: str = READING) -> T:
        """What ``action`` returns, begun again after errors that may pass; Unavailable when it keeps failing, OSError for a full
        disk."""
        for attempt in range(1, tries + 1):
            try:
                return action()
            except UserError:
                raise
            except Exception as error:  # each driver has exceptions of its own
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                may_pass = _may_pass(error)
                if attempt == tries or not may_pass:
                    raise Unavailable(self.url, what, _reason(error, self.url), may_pass, instead) from None
            time.sleep(BACK_OFF * 2 ** (attempt - 1))
        raise ValueError(f"tries is {tries}; it must be at least 1")


def is_remote(name: str) -> bool:
    """Whether a shard is fetched rather than read where it lies: ``name`` begins with a protocol."""
    return re.match(r"[a-z][a-z0-9+.-]*://", name) is not None


def is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _filesystem(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it) of ``url``."""
    import fsspec

    protocol = url.partition("://")[0]
    if protocol not in fsspec.available_protocols():
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise UserError(f"{redacted(url)}: the protocol {protocol}:// is not known. Known are {known}.")
    try:
        if not is_http(url):
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
        raise UserError(
            f"{redacted(url)} cannot be reached: the driver of {protocol}:// is missing. {remedy}"
        ) from None
    except Exception as error:  # each driver has exceptions of its own
        raise UserError(f"{redacted(url)} cannot be reached: {_reason(error, url)}.") from None


def _status(error: BaseException) -> int | None:
    """The status of the server's answer, if there was one: every driver has a place of its own for it."""
    answer = getattr(error.__cause__, "response", None)  # s3
    if isinstance(answer, dict):
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    found = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    told = str(found or getattr(error, "code", None))  # gs, as text at times
    return int(told) if told.isdecimal() else None


def _may_pass(error: BaseException) -> bool:
    if status := _status(error):
        return (status >= 500 and status != 507) or status in (408, 429)  # 507: the store is full
    hopeless = (FileNotFoundError, PermissionError, NotImplementedError, ValueError, TypeError)
    return not isinstance(error, hopeless) and type(error).__name__ not in _HOPELESS


def _reason(error: BaseException, url: str) -> str:
    """Why, in one line that holds no secret."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, NotImplementedError):
        return "its driver cannot do that"
    if status := _status(error):
        told = error.message if hasattr(error, "message") else first_line(error)
        return redacted(f"the server answers {status} {told}").strip().rstrip(".")
    text = first_line(error)
    if text.endswith(":"):  # the sentence goes on in the next line
        text = " ".join(str(error).split()[:40])
    text = text.replace(url, redacted(url))
    if user := re.match(r"[^:]+://([^/]*)@", url):  # drivers speak of it without the protocol by which it is known
        text = text.replace(user[1], REMOVED)
    return redacted(text).rstrip(".")
