"""``svco probe``: tokens add up to the cells, perplexities are the evaluation's, the page holds it all and no more."""

import argparse
import json
import re
from html.parser import HTMLParser

import launch
import numpy as np
import oracle
import pytest
import torch
from places import BASE, SHARDS

from svco.basics.errors import UserError
from svco.basics.views import ALL_VIEWS, CORRUPT, VIEWS, cells_to_evaluate
from svco.batches.encode import Encode
from svco.batches.pack import PackedCollate
from svco.commands.probe import options
from svco.commands.probe.command import models_of, run, turns
from svco.commands.probe.page import Card, page
from svco.commands.probe.perplexity import by_contrast, perplexities, reading, table, token_shares, word_table
from svco.commands.probe.scale import EDGES, legend, step
from svco.commands.probe.tokens import readable, split
from svco.data.corruption import Corruptions
from svco.data.pairs import Pair, PairText
from svco.data.shards import ShardSet, write_shards
from svco.model.subject import load_subject
from svco.recipe.config import CorruptConfig
from svco.scores import before_after

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    oracle.make_adapter(BASE, folder)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return ShardSet.open(str(SHARDS / "heldout-000000.tar"), cache_dir=tmp_path_factory.mktemp("cache"))


def random_scores(pairs, seed=0):
    generator = np.random.default_rng(seed)
    tokens = generator.integers(3, 20, (pairs, 2))
    return -generator.gamma(2.0, 0.3, (pairs, 2, len(VIEWS))) * tokens[..., None], tokens


def test_tokens_add_up_to_the_cells_of_base_and_tuned(adapter, shards):
    subject = load_subject(str(BASE), adapter, device=CPU, progress=False)
    batch, bad = Encode(subject.family, PackedCollate())([shards.read(i) for i in range(3)])
    assert not bad
    with torch.no_grad():
        cells = {"tuned": subject.scorer(batch)[0].logps}
        with subject.scorer.as_reference():
            cells["base"] = subject.scorer(batch)[0].logps
        models = models_of(subject)
        assert models.keys() == cells.keys()
        found = {name: split(score(batch), batch, 3) for name, score in models.items()}
    for name, pairs in found.items():
        for p, sides in enumerate(pairs):
            text = subject.family.encode_text(shards.read_text(p), shards.image_sizes(p))
            for side, (ids, logps) in enumerate(sides):
                assert ids.tolist() == text.responses[side].tolist()
                assert logps.shape == (len(ids), len(VIEWS))
                torch.testing.assert_close(
                    torch.from_numpy(logps.sum(0)), cells[name][p, side].double(), atol=1e-5, rtol=1e-5
                )
    assert not torch.allclose(cells["base"], cells["tuned"], atol=1e-2)


def test_perplexities_are_the_evaluations():
    logps, tokens = random_scores(40)
    expected = before_after.metrics(logps, tokens)
    part = by_contrast(logps, tokens, ["object"] * 30 + ["position"] * 10)
    for view in VIEWS:
        assert part["overall"]["perplexity"][view]["value"] == pytest.approx(expected[f"perplexity_{view}"], rel=1e-12)
    assert part["overall"]["blind_over_match"] == expected["blind_likelier"]
    assert list(part["by_contrast"]) == ["object", "position"]
    of_type = before_after.metrics(logps[30:], tokens[30:])
    assert part["by_contrast"]["position"]["perplexity"]["clash"]["value"] == pytest.approx(of_type["perplexity_clash"])
    best = (logps.argmax(-1) == 1).mean()
    assert f"without the image for {best:.1%} of 80 responses" in reading({"base": part})


def test_the_interval_is_the_jackknifes():
    logps, tokens = random_scores(60, seed=3)
    left_out = [
        np.log(before_after.metrics(np.delete(logps, i, 0), np.delete(tokens, i, 0))["perplexity_match"])
        for i in range(60)
    ]
    error = np.sqrt(59 * np.var(left_out))
    found = perplexities(logps, tokens)["match"]
    assert np.log(found["high"] / found["low"]) / (2 * 1.96) == pytest.approx(error, rel=0.03)
    assert perplexities(logps[:1], tokens[:1])["match"]["low"] is None


def test_tokens_read_as_text(family):
    text = " The café 😀 is\n<b>red</b>"
    ids = family.tokenizer(text, add_special_tokens=False)["input_ids"] + [family.tokenizer.eos_token_id]
    pieces = readable(family.tokenizer, ids)
    assert len(pieces) == len(ids)
    assert pieces[0] == " The"
    assert "".join(piece for piece in pieces if piece != "…") == text + "</s>"
    assert "…" in pieces  # the smiley's first bytes
    assert not any("Ġ" in piece or "\ufffd" in piece for piece in pieces)


def test_sentencepiece_tokens_read_as_text():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁The", "▁man", "’", "s", "<0xC3>", "<0xA9>", "</s>"]
    core = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    assert readable(tokenizer, [1, 2, 3, 4, 5, 6, 7]) == ["The", " man", "’", "s", "…", "é", "</s>"]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def colours(text):
    """Scheme -> name -> colour, of the variables in a page's style."""
    found = {"light": {}, "dark": {}}
    for dark, variables in re.findall(r"(prefers-color-scheme: dark\) \{\s*)?:root \{(.*?)\}", text, re.S):
        found["dark" if dark else "light"].update(re.findall(r"--([\w-]+): (#\w{6});", variables))
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_step_can_be_read_and_told_from_its_opposite(scheme):
    def contrast(one, two):
        low, high = sorted((luminance(one), luminance(two)))
        return (high + 0.05) / (low + 0.05)

    text = page("title", ("reading",), {}, "rule", [["pairs"]], [], [], 3)
    found, steps = colours(text)[scheme], [name for name, _ in legend()]
    for name in steps:
        assert contrast(found[name], found[f"{name}-text"]) >= 4.5, name  # WCAG AA
        for rule in (f".s{name}, ", f'[data-show="0"] .q0{name}, ', f'[data-show="1"] .q1{name} {{'):
            assert rule in text
    assert all(contrast(found[name], found["paper"]) >= 4.5 for name in ("ink", "soft"))
    # Blue against orange: the blue channel says so to every common kind of colour blindness.
    for n in range(1, len(EDGES) + 1):
        above, below = found[f"p{n}"], found[f"n{n}"]
        assert int(above[5:], 16) - int(above[1:3], 16) > 0 > int(below[5:], 16) - int(below[1:3], 16)


def test_steps_of_the_scale():
    steps = [step(nats) for nats in (-9, -0.3, -0.05, 0.0, 0.1, 0.7, 4, float("nan"))]
    assert steps == ["n5", "n1", "z", "z", "p1", "p2", "p5", "none"]
    assert len(legend()) == 2 * len(EDGES) + 1


class Reader(HTMLParser):
    """What is in a page: tags, attributes, and the text of every token of every model's response."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.responses, self.tips = [], [], [], [], []
        self.inside = False
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)
        if values.get("class") == "response":
            self.responses.append([])
        elif tag == "span" and "t" in values.get("class", "").split():
            self.responses[-1].append("")
            self.tips.append(values["title"])
            self.inside = True

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.inside = self.inside and tag != "span"

    def handle_data(self, data):
        if self.inside:
            self.responses[-1][-1] += data


def parsed(text):
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    found = Reader(text)
    assert not {"link", "iframe", "object", "base"} & set(found.tags)
    assert found.tags.count("script") == 1
    assert all(value.startswith("data:image/") for name, value in found.attributes if name in ("src", "href"))
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    return found


def test_the_page_escapes_and_holds_every_token_once_a_side(shards):
    evil = ['<script>alert("1")</script>', " & ", "a\nb", "</p>", '" onload="x']
    logps = [np.random.default_rng(s).normal(-1, 1, (5, 3)) for s in range(4)]
    logps[0][4, 1] = np.nan  # cut by the view's budget
    card = Card(
        key="<key>",
        query="<script>query</script>",
        contrast="object",
        images=shards.read(0).images,
        corrupted=(),
        pieces=(evil, evil),
        special=([False] * 5, [False] * 5),
        logps={"base": (logps[0], logps[1]), "<tuned>": (logps[2], logps[3])},
    )
    words = word_table(evil * 2, {"base": np.arange(10.0), "<tuned>": -np.arange(10.0)}, 2)
    found = parsed(page("<title>", ("<b>", "<i>"), {"base": "<i>"}, "<rule>", [["<th>"], ["<td>"]], words, [card], 3))
    assert found.responses == [[piece.replace("\n", "↵\n") for piece in evil]] * 4
    assert found.tips[0].startswith(f"“{evil[0]}”\nmatch ")
    assert "blind –" in " ".join(found.tips[4].split())
    gap = logps[0][0, 0] - logps[0][0, 1]
    assert f"match − blind  {gap:+.2f}".replace("-", "−") in found.tips[0]


def test_shares_of_tokens():
    assert token_shares(np.array([0.5, 0.49, 0.1, 0.09, -0.09, -0.5, -3, 4])) == {
        "for": 0.25,
        "no_difference": 0.25,
        "against": 0.25,
    }


def arguments(*line):
    parser = argparse.ArgumentParser()
    options.add(parser)
    return parser.parse_args([*map(str, line)])


def test_the_command_writes_all_of_it(adapter, tmp_path, shards, capsys):
    first = shards.read(0)
    text = PairText(
        key="odd", query="Is it <b>?", responses=(" <script>x()</script> 😀", " No & yes"), contrast="unknown"
    )
    broken = Pair(PairText(key="broken", query="Which?", responses=("a", "b")), (b"no image", first.images[1]))
    made = write_shards([*(shards.read(i) for i in range(4)), Pair(text, first.images), broken], tmp_path, "own", 9)
    out = tmp_path / "out"
    line = ["--base", BASE, "--adapter", adapter, "--shards", *made, "-o", out, "--pages", 3]
    assert run(arguments(*line)) == 0
    told = capsys.readouterr()
    assert launch.strictly_json(out) == {"probe.json"}
    found = json.loads((out / "probe.json").read_text())
    assert (found["pairs"], found["left_out"]) == (5, 1)
    assert "cannot be decoded" in told.err
    assert found["reading"] in told.out and found["reading"] in (out / "probe.md").read_text()
    assert found["models"].keys() == {"base", "tuned"}
    assert found["models"]["base"]["by_contrast"]["unknown"]["pairs"] == 1
    assert (out / "perplexity.png").read_bytes().startswith(b"\x89PNG")
    shown = parsed((out / "tokens.html").read_text())
    assert "odd" in found["shown"] and len(found["shown"]) == 3
    assert len(shown.responses) == 3 * 2 * 2  # pairs, sides, models
    assert shown.responses[0] == shown.responses[1]  # base beside tuned
    joined = ["".join(piece for piece in pieces if piece != "…") for pieces in shown.responses]
    assert sum("<script>x()</script> 😀" in one for one in joined) == 2
    assert str(tmp_path) not in (out / "probe.json").read_text() + (out / "tokens.html").read_text()
    assert len(table(found["models"])) == 1 + 2 * (1 + len(found["models"]["base"]["by_contrast"]))


def test_a_corrupted_image_is_a_fourth_view(adapter, tmp_path, shards):
    subject = load_subject(str(BASE), adapter, device=CPU, progress=False)
    config = CorruptConfig(kind="noise")
    cells = cells_to_evaluate([(0, CORRUPT)])
    prepare = Encode(subject.family, PackedCollate(cells), Corruptions.of(cells, config))
    batch, _ = prepare([shards.read(i) for i in range(2)])
    with torch.no_grad():
        expected = subject.scorer(batch)[0]
    line = [
        "--base",
        BASE,
        "--adapter",
        adapter,
        "--shards",
        SHARDS / "heldout-000000.tar",
        "-o",
        tmp_path,
        "--pairs",
        2,
    ]
    assert run(arguments(*line, "--corrupt", "noise", "--pages", 1)) == 0
    found = json.loads((tmp_path / "probe.json").read_text())
    perplexity = found["models"]["tuned"]["overall"]["perplexity"]
    wanted = before_after.metrics(expected.logps.double().numpy(), expected.tokens.numpy())
    assert list(perplexity) == list(ALL_VIEWS)
    for view in ALL_VIEWS:
        assert perplexity[view]["value"] == pytest.approx(wanted[f"perplexity_{view}"], rel=1e-5)
    shown = parsed((tmp_path / "tokens.html").read_text())
    assert shown.tags.count("img") == 4 and shown.tags.count("input") == 3
    assert re.search(r"^corrupt +−\d", shown.tips[0], re.M)
    assert "match − corrupt" in shown.tips[0]


def test_pairs_shown_take_turns_by_type():
    assert turns(["position", "object", "object", "position", "object"], 4) == [1, 0, 2, 3]


@pytest.mark.parametrize(
    ("options_", "says"),
    [
        (["--shards", "nowhere/*.tar"], "No shards match"),
        (["--base", "nowhere/model"], "nowhere/model"),
        (["--adapter", "nowhere/adapter"], "nowhere/adapter"),
        (["-o", "FILE"], "cannot be made"),
    ],
)
def test_a_users_mistake_is_told_to_people(tmp_path, options_, says):
    (tmp_path / "file").write_text("")
    given = [str(tmp_path / "file") if part == "FILE" else part for part in options_]
    line = ["--base", BASE, "--shards", SHARDS / "heldout-000000.tar", "-o", tmp_path / "out", *given]
    with pytest.raises(UserError, match=re.escape(says)):
        run(arguments(*line))
