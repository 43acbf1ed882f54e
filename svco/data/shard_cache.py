"""The copies of remote shards on this machine: fetched whole, once, and again when their source has changed.

fsspec's own ``filecache`` does not keep them: it writes under the final name, so that a cut transfer leaves half a shard
there; over http it never sees a change; its list of copies is one file that processes write over each other; and when it
cannot ask the source it gives no copy at all.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from ..basics.errors import UserError
from ..basics.files import CannotWrite, file_digest, file_mark, remove_leftovers, replacing, write_whole
from ..basics.secrets import redacted
from ..basics.strict_json import json_text, parse_json
from .cache_room import Users, limit, locked, users_of
from .remote import Source, Unavailable, Version
from .shard_index import build_index, keep_index
from .tar_members import NoShard

AT_ONCE = 16
"""Sources that are asked for their versions at a time."""


def fetched(urls: Sequence[str], folder: Path) -> list[Path]:
    """The copies in ``folder`` of the shards at ``urls``: fetched if there is none, or, with a warning, if its source changed or
    the copy did.

    A copy whose source does not answer stays in use, with a warning. UserError, and no file left, for a shard that cannot
    be fetched or is none, and for one that has changed while another process uses the copy.
    """
    sources = {url: Source.at(url) for url in urls}
    copies = {url: copy_of(url, folder) for url in sources}
    if not urls:
        return []
    users, most, new = users_of(folder), limit(), set()
    with suppress(OSError):  # a cache that holds all, for everyone to read
        new = users.add({copy.name: 0 for copy in copies.values()})  # before it is looked whether they are there
    try:
        outdated = _outdated([(sources[url], copy) for url, copy in copies.items() if copy.exists()])
        wanted = [url for url, copy in copies.items() if url in outdated or not copy.exists()]
        if most:
            users.add({copies[url].name: sources[url].version().size or 0 for url in wanted})
            users.make_room(most)
        for url in wanted:
            _fetch(sources[url], copies[url], outdated.get(url), users)
        if most and wanted:
            users.make_room(most)  # sizes that were not told
        for copy in copies.values():
            with suppress(OSError):
                os.utime(_record_of(copy))
    except BaseException as error:
        users.drop(new)
        if isinstance(error, OSError):
            raise _not_kept(folder, error) from None
        raise
    return [copies[url] for url in urls]


def hold(copies: Iterable[Path]) -> None:
    """Says that this process uses ``copies``, which are there: nobody deletes or replaces them while it lives."""
    for copy in copies:
        with suppress(OSError):
            users_of(copy.parent).add({copy.name: 0})


def copy_of(url: str, folder: Path) -> Path:
    """Where the copy of ``url`` lies: under the shard's own name, after a digest of the whole URL."""
    name = re.split("[?#]", url)[0].rstrip("/").rpartition("/")[2]
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def _outdated(copies: list[tuple[Source, Path]]) -> dict[str, Version | None]:
    """The URLs whose source is no longer what was copied, with its version now, and those whose copy is no longer what was
    fetched, with None. Warns of these, of the ones that do not answer, and of the ones that do not tell their version.
    """
    unreachable: dict[str, str] = {}  # server -> why; not asked again, or a thousand shards would wait a thousand times

    def ask(source: Source) -> Version | str:
        server = redacted(source.url).split("/")[2]
        if server not in unreachable:
            try:
                return source.version(tries=1)
            except Unavailable as error:
                if not error.may_pass:
                    return error.reason
                unreachable.setdefault(server, error.reason)
        return unreachable[server]

    outdated: dict[str, Version | None] = {}
    unanswered: dict[str, list[tuple[Source, Path]]] = defaultdict(list)  # why -> which
    mute: list[tuple[Source, Path]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, [source for source, _ in copies]))
    for (source, copy), answer in zip(copies, answers, strict=True):
        known = _version_of(copy)
        if known is None:
            outdated[source.url] = None
            _warn(f"{copy} is not what was fetched from {redacted(source.url)} any more; it is fetched again")
        elif isinstance(answer, str):
            unanswered[answer].append((source, copy))
        elif answer.differs(known):
            outdated[source.url] = answer
            _warn(f"{redacted(source.url)} has changed since it was fetched; it is fetched again, in place of {copy}")
        elif not (answer.etag or answer.last_modified):
            mute.append((source, copy))
    if mute:
        _warn(
            f"{_named(mute)} cannot be seen to change: the server tells neither a mark nor a time of the contents, and another "
            f"shard of the same size looks the same. To have it fetched anew, delete {mute[0][1]}"
        )
    for reason, those in unanswered.items():
        _warn(
            f"{_named(those)} cannot be asked for changes ({reason}); the copy made earlier is used. To have it fetched anew, "
            f"delete {those[0][1]}"
        )
    return outdated


def _named(those: list[tuple[Source, Path]]) -> str:
    more = f" and {len(those) - 1} more" if len(those) > 1 else ""
    return f"{redacted(those[0][0].url)}{more}"


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def _fetch(source: Source, copy: Path, version: Version | None, users: Users) -> None:
    """Fetches beside ``copy``, and gives it that name once it is indexed: what is no shard never has it. ``version``: of the
    source if the copy is of an earlier one."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with locked(copy.with_name(f".{copy.name}.lock")):
            remove_leftovers(copy.parent, glob.escape(copy.name))
            if copy.exists():
                known = _version_of(copy)
                if known and not (version and version.differs(known)):
                    return  # another process was faster
                if copy.name in (others := users.others()):
                    raise UserError(
                        f"{redacted(source.url)} has changed since it was fetched, and the copy {copy} is in use by "
                        f"{others[copy.name][0]} (host and process). Wait until that has ended, or give this one a cache of its "
                        "own: data.cache_dir."
                    )
            _replace(source, copy)
    except NoShard as error:
        raise UserError(f"What {redacted(source.url)} sends {error}") from None
    except CannotWrite as error:
        raise UserError(f"No shard can be kept there: {error} (data.cache_dir says where.)") from None


def _not_kept(folder: Path, error: OSError) -> UserError:
    return UserError(f"No shard can be kept in {folder}: {error.strerror}. Set data.cache_dir.")


def _replace(source: Source, copy: Path) -> None:
    with replacing(copy) as temporary:
        temporary.touch()  # a folder that cannot be written is not the source's trouble
        version = source.download(temporary)
        index = build_index(temporary)
    keep_index(replace(index, path=str(copy)), copy.parent)
    record = {
        "url": redacted(source.url),
        "bytes": index.bytes,
        "sha256": index.sha256,
        "mark": file_mark(copy),
        "version": asdict(version),
    }
    write_whole(_record_of(copy), json_text(record, indent=1))


def _record_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.source.json")


def _version_of(copy: Path) -> Version | None:
    """What ``copy`` is a copy of; None if its contents are no longer what was fetched. Without a record of that its size is all
    that is known."""
    size = copy.stat().st_size
    try:
        record = parse_json(_record_of(copy).read_bytes())
        if not record.keys() >= {"url", "bytes", "version"}:
            raise ValueError
        version = Version(**record["version"])
    except (OSError, ValueError, TypeError, AttributeError):
        return Version(size)
    if "mark" not in record:  # of an earlier svco
        return version if record["bytes"] == size else Version(size)
    if record["mark"] != file_mark(copy) and record.get("sha256") != file_digest(copy):
        return None
    return version
