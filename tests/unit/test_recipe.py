"""Recipes: precedence, mistakes named, and every file that is shipped."""

import dataclasses
import json
import re
import typing

import pytest
import yaml
from places import RECIPES, ROOT

from svco.basics.errors import UserError
from svco.recipe.config import Config
from svco.recipe.ds_config import fill, read_ds_config, with_leaf_sizes
from svco.recipe.limits import BOUNDS, kinds, within
from svco.recipe.read import dump, field_docs, known_keys, load_recipe, merge

DS = sorted((ROOT / "ds_configs").glob("*.json"))


def test_default_then_file_then_command_line(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("optim: {lr: 2e-5, steps: 7}\n")
    config = load_recipe(file, ["optim.lr=3e-4", "objective.beta_attend=0.5", "data.heldout=[a, b]"])
    assert (config.optim.lr, config.optim.steps, config.optim.global_batch) == (3e-4, 7, 32)
    assert load_recipe(None, ["optim.recompute=8"]).optim.recompute == "8", (
        "YAML says a number, the key takes words too"
    )
    assert config.objective.betas_of("attend") == (0.5, 0.5)
    assert config.data.heldout == ("a", "b")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.learning_rte=1", "optim.learning_rte"),
        ("optim.stepss=1", "Did you mean 'optim.steps'"),
        ("optm.lr=1", "Did you mean 'optim'"),
        ("lr=1", "section.key=value"),
        ("optim.steps=many", "whole number"),
        ("optim.steps=1.5", "whole number"),
        ("model.tune=lorra", "lora, full"),
        ("objective.beta_reject=0", "weight_reject"),
        ("data.max_bad_fraction=2", "at most 1"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("run.seed=true", "whole number"),
        ("objective.beta_attend=[1, 2, 3]", "one number, or two"),
        ("optim.global_batch=0", "at least 1"),
        ("model.quantise=int4", "none, nf4"),
    ],
)
def test_mistakes_are_named(override, says):
    with pytest.raises(UserError) as error:
        load_recipe(None, [override])
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("other", "says"), [("model.tune=full", "cannot be trained"), ("model.compile=true", "never tried")]
)
def test_what_does_not_go_with_a_base_in_4_bits(other, says):
    with pytest.raises(UserError, match=f"model.quantise is nf4 and {other.partition('=')[0]} is .*{says}"):
        load_recipe(None, ["model.quantise=nf4", other])
    assert load_recipe(None, ["model.quantise=nf4", "model.train_projector=true"]).model.quantise == "nf4"


def test_every_number_has_bounds_and_nan_passes_none():
    numbers = {key: kind for key, kind in kinds() if {int, float} & {kind, *typing.get_args(kind)}}
    assert numbers.keys() == BOUNDS.keys()
    for key, kind in numbers.items():
        for wrong in (".nan", ".inf", "-.inf") if float in (kind, *typing.get_args(kind)) else ("-1",):
            with pytest.raises(UserError, match=re.escape(key)):
                load_recipe(None, [f"{key}={wrong}"])
        low, high = BOUNDS[key][1:-1].split(", ")
        assert within(float(low), BOUNDS[key]) == BOUNDS[key].startswith("[")
        assert within(float(high), BOUNDS[key]) == BOUNDS[key].endswith("]")


@pytest.mark.parametrize(
    ("text", "kept"),
    [("0010", "0010"), ("1e3", "1e3"), ("3:55:00", "3:55:00"), ("no", "no"), ("2026-11-25", "2026-11-25")],
)
def test_text_stays_what_was_typed(tmp_path, text, kept):
    file = tmp_path / "r.yaml"
    file.write_text(f"run: {{name: {text}}}\ndata: {{train: [{text}]}}\n")
    for config in (load_recipe(file), load_recipe(None, [f"run.name={text}", f"data.train=[{text}]"])):
        assert (config.run.name, config.data.train) == (kept, (kept,))
        assert merge(Config(), yaml.safe_load(dump(config)), "") == config
    assert load_recipe(None, ["run.name=a: b #c"]).run.name == "a: b #c"
    assert load_recipe(None, ["run.name=null"]).run.name == "" == load_recipe(None, ["run.name="]).run.name
    assert load_recipe(None, ["run.seed=010"]).run.seed == 10, "decimal, not YAML's octal"


@pytest.mark.parametrize(
    ("text", "twice"),
    [
        ("optim: {lr: 1}\nmodel: {}\noptim: {steps: 1}", "'optim' is given twice, on line 1 and on line 3"),
        ("optim: {lr: 1, lr: 2}", "'lr' is given twice"),
        ("a: &x {lr: 1}\noptim:\n  <<: *x\n  steps: 1\n  steps: 2", "'steps' is given twice"),
    ],
)
def test_a_key_given_twice_is_named(tmp_path, text, twice):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=f"r.yaml: {twice}"):
        load_recipe(file)


@pytest.mark.parametrize("text", ["optim: 3", "- a", "optim: {lr: [1}", "optm: {lr: 1}"])
def test_bad_recipe_file_names_itself(tmp_path, text):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match="bad.yaml"):
        load_recipe(file)
    with pytest.raises(UserError, match="no recipe file"):
        load_recipe(tmp_path / "none.yaml")


def test_braces_taken_apart_by_the_shell_are_noticed():
    """Unquoted, ``data.train=t-{0..1}.tar`` arrives as two arguments, and the last one alone would win."""
    with pytest.raises(UserError, match=r"data\.train is given 2 times.*quote"):
        load_recipe(None, ["data.train=t-0.tar", "data.train=t-1.tar"])
    assert load_recipe(None, ["optim.lr=1", "run.seed=1", "optim.lr=2"]).optim.lr == 2


def test_dump_reads_back():
    config = load_recipe(None, ["optim.betas=[0.8, 0.9]", "run.name=x"])
    assert merge(Config(), yaml.safe_load(dump(config)), "") == config


def test_every_field_has_a_docstring():
    for section in dataclasses.fields(Config):
        kind = type(getattr(Config(), section.name))
        assert field_docs(kind).keys() == {f.name for f in dataclasses.fields(kind)}, kind
    assert len(known_keys()) == len(set(known_keys()))


def test_every_shipped_recipe_and_ds_config_fit():
    assert RECIPES
    assert DS
    for recipe in RECIPES:
        config = load_recipe(recipe, ["run.swap=/local"])
        for ds in DS:
            if config.model.quantise != "none" and read_ds_config(ds)["zero_optimization"]["stage"] == 3:
                with pytest.raises(UserError, match="loads a quantised model whole on every rank.*zero2"):
                    fill(read_ds_config(ds), config, 4, "bfloat16", str(ds), 2)
                continue
            filled = fill(read_ds_config(ds), config, 4, "bfloat16", str(ds), 2)
            sized = json.dumps(with_leaf_sizes(filled, 10**6))
            # The buffers are filled once the model's shapes are known.
            assert '"auto"' not in re.sub(r'"buffer_(count|size)": "auto"', "", sized), "every auto field is filled"
            assert filled["train_batch_size"] == 4
            assert filled["bf16"]["enabled"]
            assert filled["managed_gradient_accumulation"] is (config.model.tune == "lora")


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("ds", DS, ids=lambda path: path.stem)
def test_deepspeed_itself_accepts_every_shipped_ds_config(ds, tune):
    """Its own config model: types and names. (Quantised gathers cannot run without a GPU.)"""
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config = load_recipe(None, ["run.swap=/local", f"model.tune={tune}"])
    filled = with_leaf_sizes(fill(read_ds_config(ds), config, 1, "bfloat16", str(ds)), 10**6)
    for section in ("offload_param", "offload_optimizer"):
        offload = filled["zero_optimization"].get(section, {})
        offload |= {key: 4 for key, value in offload.items() if value == "auto"}
    known = {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    assert filled["zero_optimization"].keys() <= known
    zero = DeepSpeedConfig(filled).zero_config
    assert zero.stage == json.loads(ds.read_text())["zero_optimization"]["stage"]
    disk = ("nvme", "cpu" if tune == "lora" else "nvme")
    places = {"zero3_offload": ("cpu", "cpu"), "zero3_nvme": disk}.get(ds.stem, (None, None))
    assert (
        tuple(o and str(getattr(o.device, "value", o.device)) for o in (zero.offload_param, zero.offload_optimizer))
        == places
    )
    assert zero.zero_quantized_weights is zero.zero_quantized_gradients is (ds.stem == "zeropp" and tune == "full")


def test_zero3_gathers_a_layer_ahead():
    """A prefetch bucket below a layer's weights leaves the rest of the layer to be waited for."""
    for layer, live in ((2 * 10**8, 10**9), (6 * 10**8, 18 * 10**8)):
        zero = with_leaf_sizes(read_ds_config(ROOT / "ds_configs" / "zero3.json"), layer)["zero_optimization"]
        assert zero["stage3_prefetch_bucket_size"] == layer
        assert zero["stage3_max_live_parameters"] == live
    mine = {"zero_optimization": {"stage": 3, "stage3_prefetch_bucket_size": 7}}
    assert with_leaf_sizes(mine, 10**6) == mine, "a number stays"
    loading = with_leaf_sizes(read_ds_config(ROOT / "ds_configs" / "zero3.json"), None)["zero_optimization"]
    assert "auto" not in loading.values()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train_batch_size": 256}, ("256", "optim.global_batch")),
        ({"gradient_clipping": 0.5}, ("0.5", "optim.max_grad_norm")),
        ({"fp16": {"enabled": True}}, ("fp16.enabled", "model.dtype is float32")),
        ({"optimizer": {"type": "Adam"}}, ("optimizer", "optim.*")),
        ({"zero_optimization": {"stage": 0}}, ("stage 0", "--ds none")),
        (
            {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
            ("'cpu' at stage 2", "cpu (stage 3)"),
        ),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, ("run.swap", "nvme_path")),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}}, ("model.tune is lora", '"cpu"')),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu", "ratio": 0.5}}},
            ("offload_optimizer.ratio to 0.5", "with 1 only"),
        ),
        ({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 4}}, ("does not divide the 2 ranks",)),
        ({"zero_optimization": {"stage": 2, "zero_hpz_partition_size": 2}}, ("zero_hpz_partition_size", "stage 3")),
        *(
            ({"zero_optimization": {"stage": 3, f"zero_quantized_{what}": True}}, (f"zero_quantized_{what}", *says))
            for what, says in {
                "weights": ("model.tune is lora", "round young adapters away", "to false"),
                "gradients": ("model.tune is lora", "once a step", "to false"),
                "nontrainable_weights": ("Remove it",),
            }.items()
        ),
    ],
)
def test_contradictions_name_both_values(change, says):
    with pytest.raises(UserError) as error:
        fill(read_ds_config(ROOT / "ds_configs" / "zero3.json") | change, Config(), 2, "float32", "my.json")
    assert all(part in str(error.value) for part in ("my.json", *says))


def test_ds_config_mistakes(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    for name, says in (("bad.json", "not JSON"), ("list.json", "JSON object"), ("none.json", "no DeepSpeed config")):
        with pytest.raises(UserError, match=says):
            read_ds_config(tmp_path / name)


def test_a_ds_config_says_each_thing_once(tmp_path):
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 2}, "zero_optimization": {"stage": 3}}')
    with pytest.raises(UserError, match="ds.json is not JSON: 'zero_optimization' is given twice"):
        read_ds_config(file)


@pytest.mark.parametrize(
    "last", ["b: &b [*b]", "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))]
)
def test_references_that_unfold_without_end_are_refused(tmp_path, last):
    (tmp_path / "recipe.yaml").write_text(f"a0: &a0 [x, x]\nc: *a0\n{last}\n")
    with pytest.raises(UserError, match="unfold to more values"):
        load_recipe(tmp_path / "recipe.yaml")
