"""Shards into a folder behind a URL: uploaded one by one, and until all are there the folder is seen to be unfinished.

Object stores have no locks, and rename no folder in one move. A claim stands for both, ``UPLOADING.json``, which says who fills
the folder and with which shards, and ``MANIFEST.json``, which comes last: svco reads no folder with a claim and no manifest. A
repeated command finds the claim of its own shards, by their digests, and sends what is missing; two processes that build the same
shards help each other; of two that build different ones the second is refused, or, where both began at the same moment, the
first, before it sends its next shard.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import math
import os
import re
import socket
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..basics.disk import in_words
from ..basics.errors import UserError, first_line
from ..basics.files import file_digest, write_whole
from ..basics.progress import Progress
from ..basics.secrets import redacted
from ..basics.strict_json import json_text, parse_json
from .remote import MANIFEST, UPLOADING, Source, Unavailable, is_http

PART = 16 * 2**20
"""Bytes of a file that are sent, and held in memory, at a time: the drivers' own are 50 MiB, ten at once."""
_MOST_PARTS = 10_000
"""Of a file, in s3."""
_LARGEST_CLAIM = 65536
_PUT: dict[str, dict[str, int]] = {"s3": {"chunksize": PART, "max_concurrency": 4}, "gs": {"chunksize": PART}, "hf": {}}
"""Stores in which a file is there whole or not at all -> options of their ``put_file``."""
_SAME = {"s3a": "s3", "gcs": "gs"}
INSTEAD = "write into a folder on this machine and upload that"
AGAIN = "Repeat the command: what is there is not sent again, and until all is there svco reads nothing of that folder"


@dataclass(frozen=True)
class _Claim:
    """What ``UPLOADING.json`` says."""

    by: str
    """Host and process."""
    since: str
    """When it was written, in UTC."""
    shards: str | None
    """Digest of the names and contents of the shards that come; None while they are being made."""

    @classmethod
    def of(cls, shards: str | None) -> _Claim:
        """This process's, now."""
        return cls(_me(), datetime.now(UTC).isoformat(timespec="seconds"), shards)


@dataclass
class ShardStore:
    """A folder in a store, on its way from no shards to all of a set."""

    folder: Source
    """Where."""
    tells_md5: bool = field(default=False, init=False)
    """Whether its ETags are MD5s, which they are not where it encrypts with keys of its own."""

    @classmethod
    def at(cls, url: str) -> ShardStore:
        """UserError for what can be no such folder."""
        cls.refuse(url)
        return cls(Source.at(url.rstrip("/")))

    @staticmethod
    def refuse(url: str) -> None:
        """UserError for what can be no such folder, by its name."""
        url = url.rstrip("/")
        protocol = url.partition("://")[0]
        if is_http(url):
            raise UserError(
                f"{redacted(url)} cannot be written: over http(s) shards are read only. Give the folder by its store's own name "
                "(s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, hf://datasets/OWNER/NAME), or one on this machine."
            )
        if protocol in ("file", "local"):
            raise UserError(f"{url} is on this machine: give its path alone, {url.partition('://')[2]}.")
        if glob.has_magic(url) or "{" in url or "?" in url or "#" in url:
            raise UserError(f"{redacted(url)} is no folder's name: it holds one of * ? [ {{ #.")
        if url.endswith((".tar", ".json")):
            raise UserError(f"{redacted(url)} looks like a file's name; give the folder that the shards come into.")

    def check(self) -> None:
        """What ``begin`` refuses, and nothing of it stays: for work that takes long before there is something to upload."""
        self.begin()
        self.leave()

    def begin(self) -> None:
        """Before any work: UserError if the folder holds shards or cannot be written. It holds a claim then."""
        there, claim = self._there(), self._claim()
        self._refuse_full(there, claim)
        if claim and claim.shards:
            count = sum(name.endswith(".tar") for name in there)
            warnings.warn(
                f"{redacted(self.folder.url)} holds an upload of {claim.by} that has not ended ({count} shards, since "
                f"{claim.since}). It is gone on with if the shards are the same; if not, nothing is written there",
                stacklevel=2,
            )
        self._write_claim(claim if claim and claim.shards else _Claim.of(None))

    def fill(self, made: Path, progress: Progress) -> None:
        """Uploads all files of the folder ``made`` but the shards' indices, MANIFEST.json last. UserError, and no manifest there,
        if one cannot be sent, or if the folder is another set's."""
        paths = [path for path in made.rglob("*") if path.is_file() and not path.name.endswith(".tar.index.json")]
        files = {path.relative_to(made).as_posix(): path for path in sorted(paths)}
        manifest = files.pop(MANIFEST, None)
        shards, there, claim = _digest(files), self._there(), self._claim()
        self._refuse_full(there, claim)
        self._refuse_others(shards, claim)
        self._write_claim(_Claim.of(shards))
        if strangers := sorted(name for name in there.keys() - files.keys() if name.endswith(".tar")):
            raise UserError(
                f"{redacted(self.folder.url)} holds {strangers[0]}, which is none of the shards that were made; choose an empty "
                "folder."
            )
        missing = [name for name, path in files.items() if not self._agrees(there.get(name), path)]
        size = in_words(sum(files[name].stat().st_size for name in missing))
        for name in progress(missing, f"uploading {size}"):
            if self._is_finished(shards):
                return
            self._send(name, files[name])
        if self._is_finished(shards):
            return
        # One that began with other shards at the same moment may have sent one of the same name before it saw that it is second.
        there = self._there()
        for name, path in files.items():
            if "/" not in name and not self._holds(there.get(name), path):
                raise UserError(f"{self.folder.url}/{name} was changed or removed while others were uploaded. {AGAIN}.")
        if manifest:
            self._send(MANIFEST, manifest)
        self._remove(UPLOADING)

    def leave(self) -> None:
        """Nothing comes after all: takes the claim away, as far as that works, if no shards have begun to come."""
        with suppress(Exception):  # what ends this process is told, not this
            claim = self._claim()
            if claim and claim.shards is None and claim.by == _me():
                self._remove(UPLOADING)

    def _there(self) -> dict[str, dict[str, Any]]:
        """Name -> what the store tells, of the files in the folder; none in a folder that is not there."""

        def listed() -> Sequence[Mapping[str, Any]]:
            self.folder.filesystem.invalidate_cache()
            try:
                return self.folder.filesystem.ls(self.folder.path, detail=True)
            except FileNotFoundError:
                return []

        entries = self.folder.patiently("listed", listed, instead=INSTEAD)
        return {str(e["name"]).rpartition("/")[2]: dict(e) for e in entries if e.get("type") == "file"}

    def _claim(self) -> _Claim | None:
        data = self.folder.inside(UPLOADING).read(_LARGEST_CLAIM)
        if data is None:
            return None
        try:
            found = parse_json(data)
            shards = found["shards"]
            return _Claim(str(found["by"]), str(found["since"]), None if shards is None else str(shards))
        except (ValueError, KeyError, TypeError):
            return _Claim("an unknown process", "an unknown time", None)  # cut by a store that writes in place

    def _write_claim(self, claim: _Claim) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, UPLOADING)
            write_whole(file, json_text(asdict(claim)))
            self.tells_md5 = self._send(UPLOADING, file)

    def _refuse_full(self, there: Mapping[str, Any], claim: _Claim | None) -> None:
        if MANIFEST in there or (claim is None and any(name.endswith(".tar") for name in there)):
            raise UserError(f"{self.folder.url} already holds shards; choose an empty folder.")

    def _refuse_others(self, shards: str, claim: _Claim | None) -> None:
        if claim and claim.shards not in (None, shards):
            raise UserError(
                f"{self.folder.url} is being filled with other shards, by {claim.by} (host and process) since {claim.since}. "
                "Choose another folder; or, if that process has ended and is not to be repeated, empty this one."
            )

    def _is_finished(self, shards: str) -> bool:
        """Whether another process, which had the same shards, has sent all that was missing. UserError if the folder is not this
        one's any more."""
        claim = self._claim()
        if claim is None and MANIFEST not in self._there():
            raise UserError(f"{self.folder.url} was emptied while shards were uploaded into it. Repeat the command.")
        self._refuse_others(shards, claim)
        return claim is None

    def _send(self, name: str, path: Path) -> bool:
        """Uploads a file and asks the store what it has then; whether its mark there proves that all came."""
        there, protocol = self.folder.inside(name), self.folder.url.partition("://")[0]
        files, protocol = there.filesystem, _SAME.get(protocol, protocol)
        options = _PUT.get(protocol, {})
        if protocol == "s3":
            options = options | {"chunksize": _part(path.stat().st_size)}
        instead = INSTEAD if name == UPLOADING else f"{INSTEAD}. {AGAIN}"

        again = False

        def transfer() -> bool:
            nonlocal again
            if again and self._agrees(self._there().get(name), path):
                return True  # it had come, and the answer was lost
            again = True
            try:
                files.put_file(str(path), there.path, **options)
            except FileNotFoundError as error:
                if (
                    name != UPLOADING
                ):  # the folder is there; s3 says so of an upload in parts that it has finished already
                    raise ConnectionError(first_line(error)) from None
                reason = "there is no such bucket, repository or folder"
                raise Unavailable(there.url, "written", reason, False, instead) from None
            files.invalidate_cache()
            told = files.info(there.path)
            if not self._holds(told, path):
                raise OSError(f"what is there then, of {_size(told)} bytes, is not what was sent")
            return bool(self._agrees(told, path))

        try:
            return there.patiently("written", transfer, instead=instead)
        except BaseException as error:
            if protocol not in _PUT:
                self._remove(name)  # half of it may be there
            if isinstance(error, OSError) and not isinstance(error, UserError):
                reason = f"the store, or the disk that its driver writes to first, is full ({error.strerror})"
                raise Unavailable(there.url, "written", reason, False, instead) from None
            raise

    def _remove(self, name: str) -> None:
        there = self.folder.inside(name)
        with suppress(Exception):  # who may write need not be allowed to delete, and beside a manifest it means nothing
            there.filesystem.rm_file(there.path)

    def _holds(self, told: Mapping[str, Any] | None, path: Path) -> bool:
        """Whether the store has the file ``path``, as far as it says."""
        agrees = self._agrees(told, path)
        return agrees is True or (agrees is None and not self.tells_md5)

    @staticmethod
    def _agrees(told: Mapping[str, Any] | None, path: Path) -> bool | None:
        """Whether the file ``path`` is what a store tells of; None if it does not tell enough."""
        if told is None or _size(told) not in (None, path.stat().st_size):
            return False
        if md5 := told.get("md5Hash"):  # gs
            return base64.b64decode(md5) == bytes.fromhex(file_digest(path, "md5"))
        if lfs := told.get("lfs"):  # hf
            return lfs["sha256"] == file_digest(path)
        etag = re.fullmatch(r'"?([0-9a-f]{32}(?:-\d+)?)"?', str(told.get("ETag", "")))  # s3
        return True if etag and etag[1] == _etag(path, "-" in etag[1]) else None


def _me() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _size(told: Mapping[str, Any] | None) -> int | None:
    return -1 if told is None else told.get("size")


def _digest(files: Mapping[str, Path]) -> str:
    """Of the names and contents of shards."""
    known = {name: file_digest(path) for name, path in files.items() if name.endswith(".tar")}
    return hashlib.sha256(json_text(known).encode()).hexdigest()


def _part(size: int) -> int:
    return max(PART, math.ceil(size / _MOST_PARTS))


def _etag(path: Path, in_parts: bool) -> str:
    """s3's mark of a file: its MD5, or, of one that was sent in parts, the MD5 of the parts' MD5s and their number."""
    if not in_parts:
        return file_digest(path, "md5")
    digests, part = [], _part(path.stat().st_size)
    with path.open("rb") as stream:
        while data := stream.read(part):
            digests.append(hashlib.md5(data, usedforsecurity=False).digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
