"""Texts as the models see them, for every family: the ids and pixels of transformers' own processors, and no id that was not
meant."""

import io
import json
import random
import re
import shutil

import numpy as np
import pytest
import tiny_families
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from svco.basics.errors import BadSample, UserError
from svco.data.pairs import PairText
from svco.families import load_family

SIZES = ((40, 30), (30, 40))
NO_LIMIT = 100_000
DRAWN = 200
"""Samples of each family that are held against transformers' own processor; a quarter of it where an image has a text of its own,
whose pixels are many more."""


@pytest.fixture(scope="module", params=tiny_families.BASES)
def base(request, tmp_path_factory):
    return tiny_families.make_base(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def family(base):
    return load_family(str(base), NO_LIMIT)


@pytest.fixture
def changed(tmp_path):
    """(name of a base, file, keys of its JSON as ``a__b=value``) -> a copy of the base in which they are changed."""
    made = {}

    def change(name, file="config.json", **keys):
        if name not in made:
            made[name] = tiny_families.make_base(name, tmp_path / name)
        copy = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        shutil.copytree(made[name], copy)
        record = json.loads((copy / file).read_text())
        for path, value in keys.items():
            *sections, key = path.split("__")
            where = record
            for section in sections:
                where = where[section]
            where[key] = value
        (copy / file).write_text(json.dumps(record))
        return copy

    return change


def processor_of(family):
    """transformers' own processor of the base. The newer families' cannot be loaded whole without torchvision, for their videos:
    its parts are put together here, and what it does with images and text is its own."""
    if family.name == "gemma3":
        parts = family.image_processor, family.tokenizer, family.chat.template
        return transformers.Gemma3Processor(*parts, image_seq_length=family.config.mm_tokens_per_image)
    names = {
        "llava": "Llava",
        "llava_next": "LlavaNext",
        "llava_onevision": "LlavaOnevision",
        "qwen2_5_vl": "Qwen2_5_VL",
        "qwen3_vl": "Qwen3VL",
        "qwen3_5": "Qwen3VL",
        "internvl": "InternVL",
        "smolvlm": "Idefics3",  # SmolVLM's own, which asks for a package that spells numbers, does the same with images
    }
    config, kind = family.config, getattr(transformers, f"{names[family.name]}Processor")
    vision, token = config.vision_config, family.tokenizer.convert_ids_to_tokens(family.image_token_id)
    made = kind.__new__(kind)
    made.image_processor, made.tokenizer, made.video_processor = family.image_processor, family.tokenizer, None
    made.chat_template, made.image_token, made.image_token_id = family.chat.template, token, family.image_token_id
    made.video_token, made.video_token_id = "<|video_pad|>", family.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    made.patch_size = vision.patch_size
    for name in ("vision_feature_select_strategy", "vision_aspect_ratio"):
        setattr(made, name, getattr(config, name, None))
    made.num_additional_image_tokens = int(vision.model_type == "clip_vision_model")
    tokens = family.tokenizer
    if family.name == "internvl":
        made.start_image_token, made.end_image_token = tokens.start_image_token, tokens.end_image_token
        made.image_seq_length = config.image_seq_length
        made.multimodal_pattern = re.compile(f"(?P<image>{token})|(?P<video>{re.escape(made.video_token)})")
    elif family.name == "smolvlm":
        made.fake_image_token, made.global_image_tag = tokens.fake_image_token, "<global-img>"
        made.image_seq_len = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
    elif hasattr(vision, "image_size"):
        made.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    return made


def drawn_text(rng, longest):
    """Words, marks, digits, several scripts, emoji, white space at the ends and in the middle."""
    alphabet = [
        "red ",
        "circle",
        " left of",
        "the",
        " ",
        "  ",
        "\n",
        "\t",
        ".",
        ",",
        "?",
        "é",
        "ß",
        "图",
        "片",
        "😀",
        "👩‍🚀",
        "7",
        "–",
        "\u2028",
        "'s",
    ]
    return "".join(rng.choices(alphabet, k=rng.randint(1, longest))) + rng.choice(["x", "y.", "z ", "w\n"])


def takes_system(family):
    try:
        family.chat.render(PairText("k", "Q?", ("a", "b"), system="Be brief."), family.chat.word, None)
    except BadSample:
        return False
    return True


def test_ids_and_pixels_are_the_processors_own(family):
    processor, rng, systems = processor_of(family), random.Random(0), takes_system(family)
    compared, drawn = 0, DRAWN if family.image_text((60, 60)) == family.chat.word else DRAWN // 4
    for number in range(drawn):
        image = Image.frombytes(
            "RGB", size := (rng.randint(20, 150), rng.randint(20, 150)), rng.randbytes(3 * size[0] * size[1])
        )
        answers = (drawn_text(rng, 12), drawn_text(rng, 12) + "!")
        text = PairText(
            str(number), drawn_text(rng, 20), answers, system="Be brief. 图" if systems and number % 2 else None
        )
        encoded = family.encode_text(text, (image.size, SIZES[0]))
        said = [{"role": "system", "content": [{"type": "text", "text": text.system}]}] if text.system else []
        for condition, shown in ((0, [{"type": "image"}]), (2, [])):
            asked = [*said, {"role": "user", "content": [*shown, {"type": "text", "text": text.query}]}]
            images = {"images": [image]} if shown else {}
            prompt = processor.apply_chat_template(asked, add_generation_prompt=True, enable_thinking=False)
            if prompt.startswith(family.tokenizer.bos_token):  # as transformers' own chat templates are tokenised
                images["add_special_tokens"] = False
            for side, answer in enumerate(answers):
                told = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
                whole = processor.apply_chat_template([*asked, told])
                if not whole.startswith(prompt):  # OneVision's and Interleave's: what is asked counts, see chat.py
                    whole = prompt + family.chat.lead + answer + family.chat.tail
                made = processor(text=[whole], **images)
                theirs = list(made["input_ids"][0])
                ours = [*encoded.prefixes[condition], *encoded.responses[side]]
                ours = ours[: len(ours) - len(family.chat.end_of_response)]
                assert ours == theirs[: len(ours)]
                assert family.tokenizer.decode(theirs[len(ours) :]).strip() in ("", "<\\s>"), "what nobody has to learn"
                compared += 1
            if shown:
                assert family.prompt(text, image.size).tolist() == list(
                    processor(text=[prompt], **images)["input_ids"][0]
                )
                pixels = np.asarray(made["pixel_values"])
                ours = family.pixels([image]).pixels.numpy()
                assert np.array_equal(ours, pixels.reshape(ours.shape)), "not to a digit's difference"
    assert compared == 4 * drawn


def special_tokens(family):
    tokenizer = family.tokenizer
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted({*added, *tokenizer.all_special_tokens, tokenizer.convert_ids_to_tokens(family.image_token_id)})


def with_field(field, value, key="bad-one"):
    text = {"query": "What is it?", "responses": ["It is a.", "It is b."], "system": None}
    if field.startswith("response"):
        text["responses"][int(field[-1])] = value
    else:
        text[field] = value
    return PairText(key, text["query"], tuple(text["responses"]), system=text["system"])


def test_every_special_token_is_found_everywhere(family):
    fields = ["query", "response 0", "response 1", *(["system"] if takes_system(family) else [])]
    tokens = special_tokens(family)
    assert {"<image>", "</s>"} <= set(tokens) and family.tokenizer.decode(family.ends[-1:]) in tokens
    for token in tokens:
        for field in fields:
            for value in (f"It is {token} this.", token, f"this{token}", f"{token}\nthis", f"{token}{token}"):
                with pytest.raises(BadSample) as caught:
                    family.encode_text(with_field(field, value), SIZES)
                # A text of nothing but a token may be found to show nothing first.
                assert caught.value.reason in ("special-token", "empty-response"), (token, field, value)
                assert "'bad-one'" in str(caught.value)
                if "It" in value:
                    assert f"{field} must not contain {token!r}" in str(caught.value)
                if field != "response 0" and field != "response 1":
                    with pytest.raises(BadSample):
                        family.prompt(with_field(field, value), SIZES[0])
            # The control: letters that only look like it are text.
            apart = f"It is {token[0]} {token[1:]} this."
            family.encode_text(with_field(field, apart), SIZES)


PIECES = st.text(st.sampled_from("ab <>|/_\n图é😀.\u200b"), max_size=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_passes_holds_nothing_but_text(family, data):
    """The ids of whatever is taken: of each condition the template's own special tokens and a placeholder a feature, of each
    response its end alone."""
    tokens = special_tokens(family)
    text = st.lists(PIECES | st.sampled_from(tokens) | st.sampled_from(tokens).map(lambda t: t[:-1]), max_size=3).map(
        "".join
    )
    pair = PairText("k", "Q" + data.draw(text), ("a" + data.draw(text), "b" + data.draw(text)))
    try:
        encoded = family.encode_text(pair, SIZES)
    except BadSample:
        return
    ids = {family.tokenizer.convert_tokens_to_ids(token) for token in tokens}
    for condition, plain in enumerate(family.encode_text(PairText("k", "Q", ("a", "b")), SIZES).prefixes):
        found = [i for i in encoded.prefixes[condition].tolist() if i in ids]
        assert found == [i for i in plain.tolist() if i in ids]
    for response in encoded.responses:
        assert [i for i in response.tolist() if i in ids] == [response[-1]] and response[-1] in family.ends


def test_answers_that_are_equal_after_the_cut(base):
    family = load_family(str(base), NO_LIMIT)
    long = "The circle is red and the square is blue and "
    text = PairText("k", "What?", (f"{long}small.", f"{long}large."))
    blind = len(family.encode_text(text, SIZES).prefixes[2])
    short = load_family(str(base), blind + 6)
    with pytest.raises(
        BadSample, match="'k': both responses have the same .* tokens, as far as data.max_text_tokens"
    ) as caught:
        short.encode_text(text, SIZES)
    assert caught.value.reason == "same-responses"
    assert short.encode_text(PairText("k", "What?", ("Red.", "Blue.")), SIZES).cut == 0


def test_a_tokenizer_that_ends_every_text_by_itself(base, tmp_path):
    """It would end answers twice and prompts once: what it adds behind is left out, what it adds before stays."""
    copy = tmp_path / "ending"
    shutil.copytree(base, copy)
    record = json.loads((copy / "tokenizer.json").read_text())
    begin, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("<s>", "</s>"))
    ids = {t["content"]: t["id"] for t in record["added_tokens"]}
    record["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}, end],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, end, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("<s>", "</s>")},
    }
    (copy / "tokenizer.json").write_text(json.dumps(record))
    theirs, ours = (load_family(str(folder), 128) for folder in (copy, base))
    assert theirs.tokenizer("a")["input_ids"][-1] == ids["</s>"], "the control: this tokenizer does"
    text = PairText("k", "What colour?", ("It is red.", "It is blue."))
    for a, b in zip(
        (*theirs.encode_text(text, SIZES).responses, theirs.prompt(text, SIZES[0])),
        (*ours.encode_text(text, SIZES).responses, ours.prompt(text, SIZES[0])),
    ):
        assert a.tolist() == b.tolist()
    assert theirs.fingerprint != ours.fingerprint


REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
USER_ALONE = "{% for m in messages if m['role'] == 'user' %}<image>{{ m['content'][-1]['text'] }}{% endfor %}"
AS_PLAIN = "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"


@pytest.mark.parametrize(
    ("name", "before", "says"),
    [
        ("next_mistral", "", "leaves its system prompt out"),
        ("llava15", REFUSES, "refuses it: System role not supported"),
        ("next_mistral", AS_PLAIN, "as plain text"),
    ],
)
def test_a_system_turn_that_the_template_does_not_take(tmp_path, name, before, says):
    tiny_families.make_base(name, tmp_path)
    file = tmp_path / "chat_template.jinja"
    file.write_text(before + file.read_text())
    family = load_family(str(tmp_path), 128)
    family.encode_text(PairText("k", "Q?", ("a", "b")), SIZES)
    text = PairText("k", "Q?", ("a", "b"), system="Be brief.")
    for ask in (lambda: family.encode_text(text, SIZES), lambda: family.prompt(text, SIZES[0])):
        with pytest.raises(BadSample, match=f"'k'.*{says}") as caught:
            ask()
        assert caught.value.reason == "system-turn"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('no such thing') }}", "cannot write a question and its answer: no such thing"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "as plain text"),
        ("{% for m in messages %}{{ m['content'] + 'x' }}{% endfor %}", "cannot write a question"),
        (USER_ALONE, "does not show the assistant's"),
        (tiny_families.VICUNA.replace("c['text'] + ' '", "c['text'] | upper + ' '"), "does not show the assistant's"),
        (tiny_families.VICUNA.replace("<image>\n", ""), "shows an image by 0 of the tokens"),
        (tiny_families.VICUNA.replace("<image>\n", "<image><image>"), "shows an image by 2 of the tokens"),
    ],
)
def test_a_template_that_cannot_be_used(tmp_path, template, says):
    tiny_families.make_base("llava15", tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=says):
        load_family(str(tmp_path), 128)


def test_a_template_that_trims_an_answer_is_followed(tmp_path):
    tiny_families.make_base("next_yi", tmp_path)
    file = tmp_path / "chat_template.jinja"
    file.write_text(file.read_text().replace("c['text'] }}", "c['text'] | trim }}"))
    family = load_family(str(tmp_path), 128)
    plain, spaced = (
        family.encode_text(PairText("k", q, (a, "b")), SIZES) for q, a in (("Q?", "a"), (" Q?\n", " a \n"))
    )
    assert [p.tolist() for p in plain.prefixes] == [p.tolist() for p in spaced.prefixes]
    assert plain.responses[0].tolist() == spaced.responses[0].tolist()


def test_white_space_before_the_end_of_a_turn_is_the_templates(tmp_path):
    tiny_families.make_base("next_yi", tmp_path)
    file = tmp_path / "chat_template.jinja"
    file.write_text(file.read_text().replace("{{ '<|im_end|>' }}", "{{ '\n<|im_end|>' }}"))
    family = load_family(str(tmp_path), 128)
    assert (
        family.tokenizer.decode(family.encode_text(PairText("k", "Q?", ("a", "b")), SIZES).responses[0])
        == "a\n<|im_end|>"
    )
    assert family.tokenizer.convert_tokens_to_ids("<|im_end|>") in family.ends


STRATEGY, RATIO = "vision_feature_select_strategy", "vision_aspect_ratio"
SETTINGS = [
    ("llava15", {STRATEGY: "full"}, 17),
    ("interleave", {STRATEGY: "default"}, 15),
    ("llava15", {STRATEGY: "cls"}, "expected one of .'default', 'full'.*got cls"),
    ("next_mistral", {STRATEGY: "full"}, f"llava_next class refuse an image.*{STRATEGY} = 'full'"),
    ("onevision", {STRATEGY: "default"}, f"number of patches is not consistent.*{STRATEGY} = 'default'"),
    ("onevision", {RATIO: "anyres_max_4"}, None),
    ("onevision", {RATIO: "anyres"}, f"{RATIO} = 'anyres'"),
    ("onevision", {RATIO: "pad"}, f"{RATIO} = 'pad'"),
    ("llava15", {"vision_feature_layer": [-2, -1]}, 16),
    ("llava15", {"vision_feature_layer": -9}, "vision_feature_layer = -9"),
    ("llava15", {"vision_config__image_size": 42}, r"Input image size \(28\*28\) doesn't match model \(42\*42\)"),
    (
        "next_yi",
        {"image_grid_pinpoints": [[28, 56], [56, 28]]},
        "another image_grid_pinpoints than its image processor",
    ),
    ("qwen25_vl", {"vision_config__spatial_merge_size": 1}, "make 16 features .* and svco counts 21"),
    ("llava15", {"text_config__vocab_size": 100}, "has embeddings for 100 tokens"),
    ("internvl", {"vision_feature_layer": -2}, 4 * 5),
    ("internvl", {STRATEGY: "full"}, f"internvl class refuse an image.*{STRATEGY} = 'full'"),
    ("internvl", {"downsample_ratio": 0.25}, 1 * 5),
    ("smolvlm", {"scale_factor": 4}, 1 * 5),
    ("smolvlm", {"scale_factor": 3}, "scale_factor = 3"),
    ("smolvlm", {"model_type": "idefics3", "vision_config__model_type": "idefics3_vision"}, 4 * 5),
]


@pytest.mark.parametrize(("name", "keys", "outcome"), SETTINGS, ids=lambda value: str(value)[:40])
def test_settings_of_the_tower(changed, name, keys, outcome):
    """What the base's own class refuses, or makes other features of than are counted, is refused by name when the family is
    loaded; what it takes is counted as it makes it. No weight is read: there is none."""
    folder = changed(name, **keys)
    (folder / "model.safetensors").unlink()
    if isinstance(outcome, str):
        with pytest.raises(UserError, match=outcome):
            load_family(str(folder), 128)
    else:
        counted = load_family(str(folder), 128).features_of((48, 48))
        assert outcome is None or counted == outcome


@pytest.mark.parametrize(
    ("name", "keys", "outcome"),
    [
        ("smolvlm", {"size": {"longest_edge": 28}}, 4),
        ("smolvlm", {"do_image_splitting": False}, 4),
        ("smolvlm", {"size": {"longest_edge": 60}}, "no multiple of its tiles' 28"),
        ("smolvlm", {"do_resize": False}, "do_resize = False"),
        ("internvl", {"max_patches": 1}, 4),
    ],
)
def test_a_budget_of_tiles(changed, name, keys, outcome):
    """The image processor's own keys say how many tiles an image is cut into; what cannot be counted is refused."""
    folder = changed(name, "preprocessor_config.json", **keys)
    if isinstance(outcome, str):
        with pytest.raises(UserError, match=outcome):
            load_family(str(folder), 128)
        return
    family = load_family(str(folder), 128)
    assert family.features_of((48, 48)) == outcome
    assert family.pixels([Image.new("RGB", (48, 48))]).grids == ((1,),)
    shown, *_ = family.encode_text(PairText("k", "Q?", ("a", "b")), ((48, 48), (90, 20))).prefixes
    assert (shown == family.image_token_id).sum() == outcome


def test_a_token_without_an_embedding(changed):
    """A tokenizer that knows one token more than the model: a text that holds it is bad, all others are as they were."""
    whole = changed("next_yi")
    rows = json.loads((whole / "config.json").read_text())["text_config"]["vocab_size"]
    family = load_family(str(changed("next_yi", text_config__vocab_size=rows - 1)), 128)
    token = family.tokenizer.convert_ids_to_tokens(rows - 1)
    family.encode_text(PairText("k", "Q?", ("a", "b")), SIZES)
    with pytest.raises(BadSample, match=f"'k': response 1 must not contain {re.escape(repr(token))}") as caught:
        family.encode_text(PairText("k", "Q?", ("a", f"b {token}")), SIZES)
    assert caught.value.reason == "unknown-token"


def test_a_token_across_the_border(tmp_path):
    """A tokenizer that has the end of the prompt and the start of some answer as one token."""
    tiny_families.make_base("next_yi", tmp_path)
    record = json.loads((tmp_path / "tokenizer.json").read_text())
    token = {"id": max(t["id"] for t in record["added_tokens"]) + 1, "content": "assistant\nYes", "special": False}
    record["added_tokens"].append({"single_word": False, "lstrip": False, "rstrip": False, "normalized": False} | token)
    (tmp_path / "tokenizer.json").write_text(json.dumps(record))
    family = load_family(str(tmp_path), 128)
    family.encode_text(PairText("k", "Q?", ("a", "b")), SIZES)
    with pytest.raises(BadSample, match="'k'.*joins the end of the prompt") as caught:
        family.encode_text(PairText("k", "Q?", ("Yes.", "b")), SIZES)
    assert caught.value.reason == "unsplittable"


def test_no_proof_is_no_pass(base):
    """The control: an adapter that counts one feature too many, or makes other ones, does not load."""
    family = type(load_family(str(base), 128))

    class Miscounts(family):
        def features(self, config, size):
            return super().features(config, size) + 1

    class Shifts(family):
        def project(self, parts, encoded, grids):
            return tuple(rows.roll(1, 0) for rows in super().project(parts, encoded, grids))

    for adapter, says in ((Miscounts, "and svco counts"), (Shifts, "make other features of an image")):
        with pytest.raises(UserError, match=says):
            adapter(str(base), 128)


def test_the_proof_draws_no_random_number(base):
    import torch

    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_family(str(base), 127)
    assert torch.equal(before, torch.get_rng_state())


def test_an_answer_needs_an_end(changed):
    for name, refused in (("llava15", True), ("next_mistral", True), ("next_yi", False), ("onevision", False)):
        folder = changed(name, "tokenizer_config.json", eos_token=None)
        if refused:
            with pytest.raises(UserError, match="an answer would have no end"):
                load_family(str(folder), 128)
        else:
            assert load_family(str(folder), 128).ends, "the template ends a turn itself"


def test_an_image_of_a_pair_is_read_from_bytes(family):
    """As small and as long as images come; whatever fits no family is a bad sample by name."""
    for size in ((1, 1), (1, 300), (300, 1), (3, 700)):
        stream = io.BytesIO()
        Image.new("RGB", size).save(stream, "PNG")
        try:
            encoded = family.encode_text(PairText("odd", "Q?", ("a", "b")), (size, size))
        except BadSample as error:
            assert error.reason == "odd-image" and "'odd'" in str(error)
            continue
        assert (encoded.prefixes[0] == family.image_token_id).sum() == family.features_of(size)
