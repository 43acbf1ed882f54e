"""Credentials never come out again: of whatever an address is made into, shown or written."""

import contextlib
import io
import json
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svco.basics.errors import UserError, exit_codes
from svco.basics.secrets import REMOVED, redacted, redacted_tree
from svco.data.remote import Source
from svco.recipe.config import Config, DataConfig
from svco.recipe.parse import parse_yaml
from svco.recipe.read import dump, load_recipe
from svco.record.state import RunState

ANYTHING = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("C", "Z")), min_size=1).map(
    "Zq9".__add__
)
"""Of a secret: more than may stand in an address unquoted; no blanks. It begins as no word of a recipe does."""
USERINFO = ANYTHING.filter(lambda text: not set(text) & set("/?#@"))
NAMES = st.sampled_from(["X-Amz-Signature", "sig", "token", "key", "AWSAccessKeyId", "Policy", "anything"])
PLACES = st.sampled_from(["host", "host:8000", "127.0.0.1:1", "[::1]:80"])


@st.composite
def addresses(draw):
    """(address, secrets in it, where it leads without them)."""
    secrets, scheme = [], draw(st.sampled_from(["https", "http", "s3", "HTTPS", "memory"]))
    host, user, query = draw(PLACES), "", ""
    if draw(st.booleans()):
        # As people type it: a password is not always quoted.
        name, password = draw(USERINFO), draw(ANYTHING)
        secrets += [name, password]
        user = f"{name.replace(':', '')}:{password}@" if draw(st.booleans()) else f"{name}@"
        secrets = [text for text in secrets if text in user]
    if draw(st.booleans()) or not secrets:
        value = draw(ANYTHING)
        secrets.append(value)
        query = f"?{draw(NAMES)}={value}&list=1"
    return f"{scheme}://{user}{host}/set/train-{{000..003}}.tar{query}", secrets, "/set/train-{000..003}.tar"


def texts(address):
    """Everything that is made of an address and is shown or written: what it comes out as."""
    config = replace(Config(), data=DataConfig(train=(address,), validation=(address, "here.tar")))
    yield dump(config)
    yield str(UserError(f"The shards {address!r}, and ({address}). No."))
    yield json.dumps(redacted_tree({"config": {"train": [address]}, "command": ("train", f"data.train={address}")}))
    stderr = io.StringIO()
    with pytest.raises(SystemExit), contextlib.redirect_stderr(stderr), exit_codes():
        print(f"reading [{address}]", file=sys.stderr)
        raise ValueError(f"url='{address}'")
    assert "Traceback" in stderr.getvalue(), "a bug is still told as one"
    yield stderr.getvalue()


@given(addresses())
@settings(deadline=None, max_examples=60)
def test_no_secret_comes_out(given):
    address, secrets, place = given
    for text in texts(address):
        assert not [secret for secret in secrets if secret in text]
        assert place in text.replace("'", "").replace("\n", ""), "what is no secret stays"
    once = redacted(address)
    assert redacted(once) == once and REMOVED in once
    with pytest.raises(UserError, match="written here without its credentials"):
        Source.at(once)
    assert any(secret in address for secret in secrets), "the control: they were there"


@given(st.sampled_from(["https", "s3"]), st.sampled_from(["a@2x", "v=1", "sig=0.1", "tokens", "k8s-token.d", "0:1@2"]))
def test_what_holds_none_is_left_alone(scheme, part):
    for text in (f"{scheme}://host:8000/{part}/x-{{0..1}}.tar", f"/data/{part}/*.tar", f"a b {part}", "optim.lr=1e-3"):
        assert redacted(text) == text


def test_tokens_are_known_by_their_look():
    for text in (
        "hf_abcdefghijklmnopqrstuvwxyz012345",
        "Authorization: Bearer abcdefghijklmnopqrstuvwxyz012345",
        "AWS_SECRET_ACCESS_KEY=abcdefghijklmnopqrstuvwxyz012345",
        "GET /x.tar?sig=abcdefghijklmnopqrstuvwxyz012345 failed",
    ):
        assert "abcdefgh" not in redacted(f"it said: {text}, and stopped") and REMOVED in redacted(text)
    assert redacted_tree({"comet": {"api_key": "xyz", "enabled": True}}) == {
        "comet": {"api_key": "***", "enabled": True}
    }


def test_a_recipe_without_secrets_reads_back_equal_and_a_state_forgets_them(tmp_path):
    config = replace(Config(), data=DataConfig(train=("s3://bucket/a@2x-{0..3}.tar", "https://host/x.tar")))
    (tmp_path / "recipe.yaml").write_text(dump(config))
    assert load_recipe(tmp_path / "recipe.yaml").data.train == config.data.train
    state = RunState(command=("svco", "train", "data.train=https://me:pw@host/x.tar?sig=a"), reason="hf_" + "a" * 30)
    state.write(tmp_path)
    found = (tmp_path / "state.json").read_text()
    assert "me:pw" not in found and "sig=a" not in found and "hf_aaa" not in found
    assert parse_yaml(dump(config), "it")["run"]["name"] == ""


def test_an_option_that_is_wrong_is_told_without_its_secret():
    stderr = io.StringIO()
    with pytest.raises(SystemExit), contextlib.redirect_stderr(stderr), exit_codes():
        import argparse

        argparse.ArgumentParser().parse_args(["--x=https://me:pw@host"])
    assert "***@host" in stderr.getvalue() and "me:pw" not in stderr.getvalue()
