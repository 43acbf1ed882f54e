"""The Batch API: requests handed in as files, replies fetched within a day, at a part of the price."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator

from ..basics.strict_json import json_text, parse_json
from .cache import ReplyCache
from .client import Endpoint, read_completion
from .request import Request

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""Of one batch; the published limits are 50,000 and 200 MB."""
_PATH = "/v1/chat/completions"
_OVER = ("completed", "failed", "expired", "cancelled")


def submit(endpoint: Endpoint, cache: ReplyCache, requests: Iterable[Request]) -> int:
    """Hands in those of ``requests`` that have no reply and are in no batch; how many they were. A batch is noted in the cache
    as soon as the endpoint has it."""
    handed_in = 0
    for model, keys, file in _files(cache, requests):
        batch_id = endpoint.hand_in(file)
        cache.add_batch(batch_id, model, keys)
        handed_in += len(keys)
    return handed_in


def _files(cache: ReplyCache, requests: Iterable[Request]) -> Iterator[tuple[str, list[str], bytes]]:
    """(model, keys, the file's bytes) of each batch."""
    seen: set[str] = set()
    keys: list[str] = []
    file, model = io.BytesIO(), ""
    for request in requests:
        if request.key in seen or cache.get(request.key) or cache.is_waiting(request.key):
            continue
        line = {"custom_id": request.key, "method": "POST", "url": _PATH, "body": dict(request.body)}
        data = json_text(line, ascii_only=False).encode() + b"\n"
        if keys and (len(keys) >= MOST_REQUESTS or file.tell() + len(data) > MOST_BYTES or request.model != model):
            yield model, keys, file.getvalue()
            keys, file = [], io.BytesIO()
        seen.add(request.key)
        keys.append(request.key)
        file.write(data)
        model = request.model
    if keys:
        yield model, keys, file.getvalue()


def collect(endpoint: Endpoint, cache: ReplyCache, model: str) -> tuple[int, list[str]]:
    """Fetches the replies of the batches of ``model`` that are over into the cache. (how many replies came, a line for each
    batch that is not over or had requests without a reply)."""
    came, lines = 0, []
    for batch_id in cache.open_batches(model):
        batch = endpoint.batch(batch_id)
        if batch.status not in _OVER:
            counts = batch.request_counts
            done = f", {counts.completed:,} of {counts.total:,} done" if counts else ""
            lines.append(f"batch {batch_id} is {batch.status}{done}: collect it later")
            continue
        failed: list[str] = []
        for name in (batch.output_file_id, batch.error_file_id):
            if name:
                came += _keep(endpoint.file(name), cache, model, failed)
        if batch.status != "completed" or failed:
            why = f"; the first: {failed[0]}" if failed else ""
            lines.append(f"batch {batch_id} is {batch.status}, {len(failed)} of its requests without a reply{why}")
        cache.close_batch(batch_id)
    return came, lines


def _keep(text: str, cache: ReplyCache, model: str, failed: list[str]) -> int:
    came = 0
    request = Request({"model": model, "messages": []})
    for line in filter(str.strip, text.splitlines()):
        try:
            row = parse_json(line)
            key = row["custom_id"]
            body = (row.get("response") or {}).get("body")
            reply = read_completion(body if isinstance(body, dict) else row, request, batch=True)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            failed.append(str(error)[:200])
            continue
        cache.put(key, model, reply)
        came += 1
    return came
