"""The copies of remote shards on this machine: fetched whole, once, and again when their source has changed.

fsspec's own ``filecache`` does not keep them: it writes under the final name, so that a cut transfer leaves half a shard
there; over http it never sees a change; its list of copies is one file that processes write over each other; and when it
cannot ask the source it gives no copy at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from ..basics.errors import UserError
from ..basics.files import replacing, write_whole
from .remote import Source, Unavailable, Version, redacted
from .shard_index import build_index, keep_index
from .tar_members import NoShard

AT_ONCE = 16
"""Sources that are asked for their versions at a time."""


def fetched(urls: Sequence[str], folder: Path) -> list[Path]:
    """The copies in ``folder`` of the shards at ``urls``: fetched if there is none, or, with a warning, if its source changed.

    A copy whose source does not answer stays in use, with a warning. UserError, and no file left, for a shard that cannot
    be fetched or is no whole tar.
    """
    sources = {url: Source.at(url) for url in urls}
    copies = {url: copy_of(url, folder) for url in sources}
    outdated = _outdated([(sources[url], copy) for url, copy in copies.items() if copy.exists()])
    for url, copy in copies.items():
        if url in outdated or not copy.exists():
            _fetch(sources[url], copy)
    return [copies[url] for url in urls]


def copy_of(url: str, folder: Path) -> Path:
    """Where the copy of ``url`` lies: under the shard's own name, after a digest of the whole URL."""
    name = re.split("[?#]", url)[0].rstrip("/").rpartition("/")[2]
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def _outdated(copies: list[tuple[Source, Path]]) -> set[str]:
    """The URLs whose source is no longer what was copied. Warns of these, and of the ones that do not answer."""
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

    outdated: set[str] = set()
    unanswered: dict[str, list[tuple[Source, Path]]] = defaultdict(list)  # why -> which
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, [source for source, _ in copies]))
    for (source, copy), answer in zip(copies, answers, strict=True):
        if isinstance(answer, str):
            unanswered[answer].append((source, copy))
        elif answer.differs(_version_of(copy)):
            outdated.add(source.url)
            warnings.warn(
                f"{redacted(source.url)} has changed since it was fetched; it is fetched again, in place of {copy}",
                stacklevel=3,
            )
    for reason, those in unanswered.items():
        source, copy = those[0]
        more = f" and {len(those) - 1} more" if len(those) > 1 else ""
        warnings.warn(
            f"{redacted(source.url)}{more} cannot be asked for changes ({reason}); the copy made earlier is used. To have it "
            f"fetched anew, delete {copy}",
            stacklevel=3,
        )
    return outdated


def _fetch(source: Source, copy: Path) -> None:
    """Fetches beside ``copy``, and gives it that name once it is indexed: what is no shard never has it."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with replacing(copy) as temporary:
            temporary.touch()  # a folder that cannot be written is not the source's trouble
            version = source.download(temporary)
            index = build_index(temporary)
        keep_index(replace(index, path=str(copy)), copy.parent)
        record = {"url": redacted(source.url), "bytes": index.bytes, "version": asdict(version)}
        write_whole(_record_of(copy), json.dumps(record, indent=1))
    except NoShard as error:
        raise UserError(f"What {redacted(source.url)} sends {error}") from None
    except OSError as error:
        raise UserError(f"No shard can be kept in {copy.parent}: {error.strerror}. Set data.cache_dir.") from None


def _record_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.source.json")


def _version_of(copy: Path) -> Version:
    """What ``copy`` is a copy of: as recorded if the record fits the file, else its size is all that is known."""
    size = copy.stat().st_size
    try:
        record = json.loads(_record_of(copy).read_text())
        if record["bytes"] == size:
            return Version(**record["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Version(size)
