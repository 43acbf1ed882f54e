"""Asking an endpoint: one on loopback that misbehaves in every way that was seen, through the real package."""

import re
import subprocess
import sys
import threading

import pytest
from endpoint_server import KEY, Server, completion

pytest.importorskip("openai", reason="NOT TESTED: needs openai: pip install 'svco[endpoint]'")

from svco.basics.errors import UserError
from svco.basics.parallel import in_parallel
from svco.endpoint.asking import FAILURES_IN_A_ROW, Asker
from svco.endpoint.cache import ReplyCache
from svco.endpoint.client import Endpoint, Unanswered, read_completion
from svco.endpoint.prices import Estimate, bill, price_of
from svco.endpoint.request import Request, make_request


@pytest.fixture
def server(monkeypatch):
    with Server(lambda body: body["messages"][-1]["content"].upper()) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


@pytest.fixture
def cache(tmp_path):
    with ReplyCache(tmp_path / "replies.sqlite") as cache:
        yield cache


def request(text="hello", **parameters):
    return make_request("m", None, text, parameters=parameters)


@pytest.mark.parametrize(
    ("how", "times", "unanswered"),
    [
        ([], 1, 0),
        (["429"], 2, 1),
        (["500", "500"], 3, 2),
        (["cut"], 2, 1),
        (["slow"], 2, 1),
        (["malformed"], 2, 1),
        (["html"], 2, 1),
        (["empty", "429"], 3, 2),
    ],
    ids=lambda how: "+".join(how) if isinstance(how, list) else str(how),
)
def test_a_reply_comes_in_the_end_and_every_attempt_is_counted(server, cache, how, times, unanswered):
    server.misbehave = list(how)
    ask = Asker(Endpoint(timeout=1.0), cache)
    reply = ask(request())
    assert (reply.text, reply.model, reply.prompt_tokens, reply.reply_tokens) == ("HELLO", "m-as-served", 100, 10)
    assert len(server.bodies) == times
    spent = cache.spent("m")
    assert (spent.replies, spent.attempts) == (1, times)
    assert spent.unanswered_tokens == unanswered * request().prompt_tokens
    assert ask(request()) == reply and len(server.bodies) == times, "a known reply is not asked for again"


@pytest.mark.parametrize(
    ("how", "times", "says"),
    [("500", 3, "status 500"), ("400", 1, "status 400"), ("html", 2, "hotel"), ("malformed", 2, "no reply")],
)
def test_what_brings_no_reply_is_said_and_counted(server, cache, how, times, says):
    server.misbehave = [how] * 9
    with pytest.raises(Unanswered, match=says):
        Asker(Endpoint(), cache)(request())
    assert (len(server.bodies), cache.spent("m").attempts, cache.spent("m").replies) == (times, times, 0)


def test_an_endpoint_that_answers_nothing_is_left_alone(server, cache):
    server.misbehave = ["400"] * 99
    ask = Asker(Endpoint(), cache)

    def one(number):
        try:
            return ask(request(str(number)))
        except Unanswered as error:
            return error

    with pytest.raises(UserError, match=r"\d requests in a row brought no reply; the last: status 400: That is a 400"):
        list(in_parallel(one, range(99), 2))
    assert len(server.bodies) <= FAILURES_IN_A_ROW + 8, "nothing new is begun"


def test_neither_key_nor_address_is_told_or_kept(server, cache, monkeypatch, tmp_path):
    ask = Asker(Endpoint(), cache)
    ask(request("good"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-but-secret")
    with pytest.raises(UserError, match="status 401") as refused:
        Asker(Endpoint(), cache)(request("refused"))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:pass@127.0.0.1:9/v1")
    with pytest.raises(Unanswered) as unreached:
        Asker(Endpoint(retries=0), cache)(request("unreached"))
    told = str(refused.value) + str(unreached.value)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"GOOD" in kept, "the control: what is kept is found like this"
    for secret in (KEY, "sk-wrong-but-secret", "127.0.0.1", "user:pass"):
        assert secret not in told and secret.encode() not in kept, secret
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="Set OPENAI_API_KEY"):
        Endpoint()


def test_many_at_once_are_bounded_in_order_and_asked_once(server, cache):
    server.seconds = 0.02
    ask = Asker(Endpoint(), cache)
    taken = []

    def numbers():
        for number in range(60):
            taken.append(number)
            yield number

    found = in_parallel(lambda number: ask(request(f"n{number % 20}")).text, numbers(), 4)
    first = next(found)
    assert len(taken) <= 16, "items are taken as they are needed"
    assert [first, *found] == [f"N{number % 20}" for number in range(60)]
    assert 2 <= server.most_at_once <= 4
    assert set(server.asked.values()) == {1} and len(server.asked) == 20


def test_a_cache_is_one_process_at_a_time(tmp_path):
    path = tmp_path / "replies.sqlite"
    told = f"from svco.endpoint.cache import ReplyCache; from pathlib import Path; ReplyCache(Path({str(path)!r}))"
    with ReplyCache(path):
        done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert "in use by another process" in done.stderr
    assert subprocess.run([sys.executable, "-c", told]).returncode == 0
    (tmp_path / "other").write_text("no database " * 99)
    with pytest.raises(UserError, match="is no cache of replies"):
        ReplyCache(tmp_path / "other")


def test_a_request_is_named_by_all_of_it():
    requests = [request(), request("other"), request(temperature=0.0), request(temperature=1.0)]
    requests += [make_request("n", None, "hello"), make_request("m", "s", "hello"), Request(request().body, turn=1)]
    requests += [make_request("m", None, "hello", [image]) for image in (b"\xff\xd8\xff1", b"\xff\xd8\xff2")]
    assert len({r.key for r in requests}) == len(requests)
    assert request().key == request().key
    assert requests[-1].images == 1 and requests[-1].prompt_tokens == request().prompt_tokens


BODY = completion({"model": "m"}, "text")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_completion_is_a_value_error(data):
    with pytest.raises(ValueError):
        read_completion(data, request())
    odd = BODY | {"usage": {"prompt_tokens": -1, "completion_tokens": "many"}, "model": None}
    reply = read_completion(odd, request("a" * 70))
    assert (reply.text, reply.model, reply.prompt_tokens) == ("text", "m", 28), "estimated where it is not said"


def test_prices_are_a_file_and_an_unknown_price_is_called_unknown(tmp_path, cache):
    table = tmp_path / "prices.yaml"
    table.write_text("models:\n  m: {input: 2, output: 10, image: 1000, batch: 0.5}\nfree: ['local-*']\n")
    price = price_of("m", table)
    estimate = Estimate(price)
    picture = make_request("m", None, "x" * 3500, [b"\xff\xd8\xff"], {"max_tokens": 500})
    estimate.add(picture, cached=False)
    estimate.add(picture, cached=True)
    lines = "\n".join(estimate.lines(3))
    assert "requests: 1, and 1 whose" in lines and "about 2,008 of prompts, at most 500" in lines
    assert re.search(r"\$0\.0090 at most .*; \$0\.0270 at worst, each sent and billed 3 times", lines)
    assert price.of(1e6, 1e6, batch=True) == 6
    assert price_of("local-7b", table).of(1e9, 1e9) == 0
    assert "unknown" in bill(price_of("other", table), cache.spent("other"))
    for wrong in (
        "models: 1",
        "models: {m: {input: 1}}",
        "models: {m: {input: -1, output: 1}}",
        "x: [",
        "models: {m: 3}",
    ):
        table.write_text(wrong)
        with pytest.raises(UserError, match="prices.yaml"):
            price_of("m", table)


def test_threads_are_gone_when_one_fails(cache):
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda n: 1 // (n - 5), range(1000), 4))
    assert threading.active_count() == before
