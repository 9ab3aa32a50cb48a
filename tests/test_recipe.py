"""Recipes: all errors at once, nearest names, YAML 1.2, and that shipped ones are valid."""

import json
from dataclasses import replace

import pytest

from edgessl.core.errors import RecipeInvalid
from edgessl.core.recipe import Recipe
from edgessl.core.recipe_text import dump_yaml, load_yaml, parse_setting
from edgessl.core.shipped import shipped_recipes
from edgessl.core.widths import parse_width
from edgessl.stages.pretrain import make_view_specs
from edgessl.stages.recipes import recipe_values, validated


@pytest.mark.parametrize("name", tuple(shipped_recipes()))
def test_shipped_recipes_are_valid_and_survive_a_round_trip(name):
    recipe = validated(recipe_values(name))
    assert validated(load_yaml(dump_yaml(recipe), "saved")) == recipe


def test_all_errors_come_at_once_with_the_nearest_name():
    values = {
        "nme": "x", "data": {"imgz": 3, "test_share": 2}, "encoder": {"name": "mobilnet_v1"},
        "pretrain": {"method": "sacl_xd", "epochs": 0, "views": {"preset": "cifar"}},
        "export": {"targets": ["onxx"]}, "bench": {"device": "lokal"},
    }  # fmt: skip
    with pytest.raises(RecipeInvalid) as caught:
        validated(values)
    message = caught.value.message
    for part in (
        "error(s)", "nme: unknown key; did you mean 'name'?", "data.imgz", "'imgsz'",
        "data.test_share", "pretrain.epochs", "did you mean 'sacl-xd'?",
        "did you mean 'mobilenet_v1'?", "did you mean 'onnx'?", "did you mean 'local'?",
        "pretrain.views.preset",
    ):  # fmt: skip
        assert part in message, part
    assert caught.value.exit_code == 3


def test_options_of_a_method_are_checked_with_it():
    values = {"pretrain": {"method": "sacl-xd", "options": {"alfa": 0.5, "lam": -1}}}
    with pytest.raises(RecipeInvalid, match=r"alfa.*did you mean 'alpha'\?") as caught:
        validated(values)
    assert "lam" in caught.value.message


def test_the_two_forms_of_a_smaller_rate_for_vectors_are_refused_together():
    lars = {"pretrain.optimizer": "lars", "pretrain.lars.bias_lr_mult": 0.024}
    for values in (lars, lars | {"pretrain.options.scale_loss": 0.048}):
        with pytest.raises(RecipeInvalid, match=r"bias_lr_mult: 0\.024 beside .*scale_loss"):
            validated({}, {"pretrain.method": "barlow"} | values)
    validated({}, {"pretrain.method": "barlow"} | lars | {"pretrain.options.scale_loss": 1})
    validated({}, {"pretrain.method": "simclr"} | lars)  # has no scale_loss
    all_alike = lars | {"pretrain.lars.exclude_vectors": False}  # a ratio undoes the scale
    validated({}, {"pretrain.method": "barlow", "pretrain.lars.clip": False} | all_alike)
    with pytest.raises(RecipeInvalid, match="would only be a bound"):
        validated({}, {"pretrain.method": "barlow"} | all_alike)


def view_specs_of(**values):
    return make_view_specs(validated({}, {f"pretrain.{k}": v for k, v in values.items()}))


def test_strengths_of_views_replace_those_of_the_preset_in_every_view():
    plain = view_specs_of(**{"views.preset": "byol_asym"})
    assert [v.blur for v in plain] == [1.0, 0.1]
    named = {"hue": 0.0, "gray": 0.0, "saturation": 0.1, "solarize": 0.5, "jitter": 1.0}
    changed = view_specs_of(
        **{"views.preset": "byol_asym"}, **{f"views.{k}": v for k, v in named.items()}
    )
    assert changed == tuple(replace(view, **named) for view in plain)
    with pytest.raises(RecipeInvalid, match="hue"):
        view_specs_of(**{"views.hue": 0.6})


def test_local_crops_are_blurred_as_often_as_whole_views_on_average():
    *whole, first, second = view_specs_of(
        **{"method": "sacl-xd", "views.preset": "byol_asym", "views.local": 2, "views.hue": 0.0}
    )
    assert first == second
    assert (first.blur, first.solarize, first.hue) == (pytest.approx(0.55), 0.0, 0.0)
    assert (first.jitter, first.crop_scale) == (whole[0].jitter, (0.05, 0.3))


def test_training_with_labels_has_the_view_of_fine_tuning_unless_told():
    (mild,) = view_specs_of(method="supervised")
    assert (mild.jitter, mild.gray, mild.crop_scale) == (0.0, 0.0, (0.5, 1.0))
    (asked,) = view_specs_of(method="supervised", **{"views.preset": "cifar_asym"})
    assert asked.jitter > 0
    assert len(view_specs_of(method="sacl-xd")) == 2


def test_yaml_is_version_1_2():
    values = load_yaml("a: 1e-3\nb: off\nc: no\nd: 0o10", "x")
    assert values == {"a": 1e-3, "b": "off", "c": "no", "d": 8}


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [1", "- 1", "a: !!python/object:os.system x"])
def test_what_is_no_plain_mapping_is_refused(text):
    with pytest.raises(RecipeInvalid, match=r"recipe\.yaml"):
        load_yaml(text, "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5x-1x", (1.5, 1.0)),
        ("1x", (1, 1)),
        ("2-0.5", (2, 0.5)),
        (".5x", (0.5, 0.5)),
        ("1.5x-1x-0.5x", (1.5, 1, 0.5)),
        ("1x-1x-.25x", (1, 1, 0.25)),
    ],
)
def test_widths(text, expected):
    assert parse_width(text) == expected


@pytest.mark.parametrize("text", ["1x-2x", "0x", "wide", "1x-", "-1x", "2x-0.5x-1x"])
def test_bad_widths(text):
    with pytest.raises(ValueError, match=r"width|want"):
        parse_width(text)


def test_settings_go_through_yaml_and_over_the_file():
    assert parse_setting("export.targets=[onnx]") == ("export.targets", ["onnx"])
    assert parse_setting("data.test=null") == ("data.test", None)
    recipe = validated(recipe_values("quickstart"), dict([parse_setting("pretrain.epochs=7")]))
    assert recipe.pretrain.epochs == 7
    with pytest.raises(RecipeInvalid, match=r"form section\.key=value"):
        parse_setting("epochs")


def test_a_recipe_is_frozen_and_has_a_schema():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3
    schema = json.loads(json.dumps(Recipe.model_json_schema()))
    assert schema["additionalProperties"] is False
