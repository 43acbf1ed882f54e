"""The embedded world, its shards and its base model."""

import collections
import hashlib
import io
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from PIL import Image
from places import BASE, ROOT

from svco.data.shards import ShardSet
from svco.tiny_world.contrast import SPLITS, world_pair
from svco.tiny_world.grammar import questions
from svco.tiny_world.render import SIDE, render
from svco.tiny_world.scenes import UNSEEN, Scene, Thing, sample_scene

SHARDS = ROOT / "data_shards"


def scene(facts):
    return Scene(tuple(Thing(f["shape"], f["colour"], f["size"], tuple(f["cell"])) for f in facts))


@pytest.fixture(scope="module")
def shipped():
    opened = {split: ShardSet.open(str(SHARDS / f"{split}-*.tar")) for split in SPLITS}
    return {split: [s.read(i) for i in range(len(s))] for split, s in opened.items()}


def test_shards_are_what_their_digests_say():
    lines = (SHARDS / "SHA256SUMS").read_text().split("\n")[:-1]
    named = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert named.keys() == {path.name for path in SHARDS.glob("*.tar")}
    for name, digest in named.items():
        assert hashlib.sha256((SHARDS / name).read_bytes()).hexdigest() == digest, name
    assert sum((SHARDS / name).stat().st_size for name in named) <= 16 * 2**20


def test_shards_are_what_the_seed_renders(shipped):
    for split, (count, _) in SPLITS.items():
        assert len(shipped[split]) == count
        for index in (0, 7, count - 1):
            ours, stored = world_pair(split, index), shipped[split][index]
            assert ours.text == stored.text
            for a, b in zip(ours.images, stored.images, strict=True):
                # JPEG encoders differ by version in the last bits, drawings do not.
                pixels = [np.asarray(Image.open(io.BytesIO(data))).astype(float) for data in (a, b)]
                assert abs(pixels[0] - pixels[1]).mean() < 2


def test_splits_share_no_picture_and_no_unseen_combination(shipped):
    homes = collections.defaultdict(set)
    for split, pairs in shipped.items():
        for pair in pairs:
            for image in pair.images:
                homes[hashlib.sha256(image).hexdigest()].add(split)
            combinations = {(f["shape"], f["colour"]) for facts in pair.text.facts["scenes"] for f in facts}
            assert bool(combinations & UNSEEN) is pair.text.facts["unseen"]
            assert combinations <= UNSEEN or not combinations & UNSEEN
    assert all(len(splits) == 1 for splits in homes.values())
    unseen = {split: sum(p.text.facts["unseen"] for p in pairs) / len(pairs) for split, pairs in shipped.items()}
    assert (unseen["train"], unseen["val"]) == (0, 0)
    assert 0.15 < unseen["heldout"] < 0.35
    contrasts = collections.Counter(p.text.contrast for p in shipped["train"])
    assert contrasts == dict.fromkeys(("object", "attribute", "relation", "position"), 256)


@pytest.mark.parametrize("index", range(64))
def test_sides_differ_in_the_contrast_and_nothing_else(index):
    text = world_pair("gate", index).text
    first, second = (scene(facts) for facts in text.facts["scenes"])
    assert text.responses[0] != text.responses[1]
    # Each response is what its own scene answers to the question, and the other scene answers it differently.
    for own, other, value in ((first, second, text.facts["values"][0]), (second, first, text.facts["values"][1])):
        answers = [
            {q.value for q in questions(s) for form in (0, 1) if q.kind == text.kind and q.ask(form) == text.query}
            for s in (own, other)
        ]
        assert answers[0] == {value}
        assert value not in answers[1]
    facts = [collections.Counter((t.shape, t.colour, t.size, t.cell) for t in s.things) for s in (first, second)]
    gone = (facts[0] - facts[1]).total(), (facts[1] - facts[0]).total()
    if text.kind == "count":
        assert min(gone) == 0
        assert max(gone) == abs(len(first.things) - len(second.things))
    else:
        assert len(first.things) == len(second.things)
        assert gone in ((1, 1), (2, 2) if len(first.things) == 2 else ())
        changed = [
            sum(getattr(a, part) != getattr(b, part) for a, b in zip(first.things, second.things, strict=True))
            for part in ("shape", "colour", "size")
        ]
        expected = {"object": [1, 0, 0], "size": [0, 0, 1], "colour": [0, len(first.things), 0]}
        if text.kind in expected:
            assert changed == expected[text.kind]


def test_one_seed_draws_one_background():
    rng = Random(1)
    first = sample_scene(rng, "one", False)
    moved = Scene((Thing(first.things[0].shape, "red", "small", (1, 1)),))
    still = Scene((Thing(first.things[0].shape, "red", "small", (0, 0)),))
    a, b = (np.asarray(render(s, 5)).astype(int) for s in (moved, still))
    half = SIDE // 2
    assert (a[:half, half:] == b[:half, half:]).all()
    assert (a[half:, :half] == b[half:, :half]).all()
    assert (a[:half, :half] != b[:half, :half]).any()
    assert (np.asarray(render(still, 5, "outline")) != b).any()
    assert (np.asarray(render(still, 6)) != b).any()


def test_pretraining_never_shows_an_unseen_combination():
    rng = Random(0)
    for _ in range(3000):
        things = sample_scene(rng, rng.choice(("one", "many", "two")), rng.random() < 0.5).things
        assert not {(t.shape, t.colour) for t in things} & UNSEEN


def test_pretraining_scores_a_turn_behind_a_shared_picture_as_it_does_alone():
    """With a picture and without, in one packed row, against the plain model's own pass over each turn."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import LlavaForConditionalGeneration

    from svco.families import load_family
    from svco.tiny_world.pretrain import Packer, Pool, Schedule, Teller, answer_loss, encode_pool

    model = LlavaForConditionalGeneration.from_pretrained(BASE).eval()
    family = load_family(str(BASE), 128)
    shown = sample_scene(Random(3), "two", correlated=True)
    pixels = family.pixels([render(shown, 0)]).pixels
    turns = Teller(Random(4), Schedule(), lazy=True).turns(shown)
    assert {picture for _, _, picture in turns} == {True, False}
    packer = Packer(family)
    with torch.no_grad():
        ours = answer_loss(model, family, encode_pool(model, Pool([shown], pixels)).images, packer.pack([turns]))
        total, tokens = 0.0, 0
        for turn in turns:
            prefix, answer = (torch.from_numpy(ids) for ids in packer.ids(*turn))
            row = torch.cat([prefix, answer])[None]
            logits = model(input_ids=row, pixel_values=pixels if turn[2] else None).logits[0]
            total += float(cross_entropy(logits[-len(answer) - 1 : -1], answer, reduction="sum"))
            tokens += len(answer)
    assert float(ours) == pytest.approx(total / tokens, rel=1e-4)


def test_base_loads_silently_offline_and_speaks():
    """In a fresh process, by the auto classes, with every warning an error."""
    script = """
import sys
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
processor = AutoProcessor.from_pretrained(sys.argv[1])
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1])
for content, image in (([{"type": "image"}], Image.new("RGB", (48, 48))), ([], None)):
    turn = [{"role": "user", "content": [*content, {"type": "text", "text": "What colour is the circle?"}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    inputs = processor(text=text, images=image, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    print(processor.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", script, str(BASE)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.strip().lower().splitlines()
    assert len(answers) == 2
    for answer in answers:
        assert any(colour in answer for colour in ("red", "blue", "green", "yellow", "purple", "orange")), answers
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= 8 * 2**20
