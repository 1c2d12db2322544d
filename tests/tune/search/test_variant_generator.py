"""Variants of search spaces: which there are, in which order, and what they are called."""

from __future__ import annotations

import logging
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

from mltoolkit.tune.search.sample import choice, loguniform, randint, sample_from, uniform
from mltoolkit.tune.search.variant_generator import (
    RecursiveDependencyError,
    count_variants,
    flatten,
    flatten_resolved_vars,
    format_vars,
    generate_variants,
    get_preset_variants,
    grid_search,
    has_unresolved_values,
    is_grid,
    parse_spec_vars,
    unflatten,
)


def variants(config, seed=0, **options):
    found = generate_variants({"config": config}, random_state=np.random.default_rng(seed), **options)
    return [(flatten_resolved_vars(chosen), spec["config"]) for chosen, spec in found]


def configs(config, seed=0, **options):
    return [variant for _, variant in variants(config, seed, **options)]


def test_a_space_without_anything_to_resolve_has_one_variant():
    assert variants({"a": 1, "b": [1, {"c": 2}]}) == [({}, {"a": 1, "b": [1, {"c": 2}]})]
    assert variants({}) == [({}, {})]


def test_the_first_grid_by_path_varies_fastest():
    space = {"z": grid_search([1, 2]), "a": grid_search([3, 4]), "m": {"b": grid_search([5])}}
    assert [tuple(chosen.values()) for chosen, _ in variants(space)] == [(3, 5, 1), (4, 5, 1), (3, 5, 2), (4, 5, 2)]


def test_grids_in_nested_lists_have_flat_names():
    space = {"model": {"fcnet_hiddens": [grid_search([20, 40]), grid_search([20, 40])]}}
    found = variants(space)
    assert [config["model"]["fcnet_hiddens"] for _, config in found] == [[20, 20], [40, 20], [20, 40], [40, 40]]
    assert found[1][0] == {"model/fcnet_hiddens/0": 40, "model/fcnet_hiddens/1": 20}


def test_a_seed_gives_the_variants_and_tags_of_ray_tune():
    space = {
        "model": {"fcnet_hiddens": [grid_search([20, 40]), grid_search([20, 40])], "act": choice(["relu", "tanh"])},
        "z": grid_search([1, 2]),
        "lr": uniform(0, 1),
    }
    found = list(generate_variants({"config": space}, random_state=np.random.default_rng(3)))
    assert len(found) == 8
    assert [format_vars(chosen) for chosen, _ in found[:5]] == [
        "lr=0.2368,act=tanh,0=20,1=20,z=1",
        "lr=0.8013,act=relu,0=40,1=20,z=1",
        "lr=0.0941,act=tanh,0=20,1=40,z=1",
        "lr=0.4331,act=tanh,0=40,1=40,z=1",
        "lr=0.1597,act=tanh,0=20,1=20,z=2",
    ]
    assert found[0][1]["config"]["lr"] == 0.2368105065960997


def test_distributions_are_drawn_for_each_point_of_the_grid():
    drawn = [config["u"] for config in configs({"g": grid_search([1, 2, 3]), "u": uniform(0, 1)})]
    assert len(set(drawn)) == 3


def test_a_constant_grid_keeps_what_was_drawn_and_computed():
    space = {
        "g": grid_search([1, 2, 3]),
        "u": uniform(0, 1),
        "twice": sample_from(lambda config: config["u"] * 2),
        "both": sample_from(lambda config: config["g"] * 10),
    }
    found = configs(space, constant_grid_search=True)
    assert len({(config["u"], config["twice"]) for config in found}) == 1
    assert found[0]["twice"] == found[0]["u"] * 2
    assert [config["both"] for config in found] == [10, 20, 30]


def test_tuples_keep_their_type():
    Shape = namedtuple("Shape", "width depth")
    found = configs({"t": (grid_search([1, 2]), "k"), "shape": Shape(choice([7]), 3)})
    assert [config["t"] for config in found] == [(1, "k"), (2, "k")]
    assert found[0]["shape"] == Shape(7, 3)
    assert type(found[0]["shape"]) is Shape


def test_subclasses_of_dict_keep_their_type():
    config = configs({"o": OrderedDict(a=choice([1]), b=2)})[0]
    assert type(config["o"]) is OrderedDict
    assert config["o"] == {"a": 1, "b": 2}


def test_grids_within_grids_are_walked_through():
    found = [config["a"] for config in configs({"a": grid_search([grid_search([1, 2]), grid_search([3, 4, 5]), 6])})]
    assert found == [1, 2, 3, 4, 5, 6]


def test_values_of_a_choice_may_be_spaces():
    space = {"a": choice([{"kind": "sgd", "lr": uniform(0, 1)}, {"kind": "adam"}, randint(5, 6)])}
    seen = [variants(space, seed)[0] for seed in range(30)]
    kinds = {config["a"]["kind"] if isinstance(config["a"], dict) else config["a"] for _, config in seen}
    assert kinds == {"sgd", "adam", 5}
    for chosen, config in seen:
        assert not has_unresolved_values(config)
        if isinstance(config["a"], dict) and "lr" in config["a"]:
            assert chosen == {"a": config["a"], "a/lr": config["a"]["lr"]}
    assert space["a"].categories[0]["lr"].domain_str == "(0, 1)"  # the space itself is not touched


def test_a_grid_of_dicts_with_distributions():
    found = configs({"a": grid_search([{"k": "x", "lr": uniform(0, 1)}, {"k": "y"}])})
    assert [config["a"]["k"] for config in found] == ["x", "y"]
    assert 0 <= found[0]["a"]["lr"] < 1


@pytest.mark.parametrize(
    "double",
    [
        lambda config: config["x"] * 2,
        lambda config: config.x * 2,
        lambda spec: spec.config.x * 2,
        lambda spec: spec["config"]["x"] * 2,
        lambda spec: spec.get("config").get("x") * 2,
        lambda config: dict(config)["x"] * 2,
    ],
)
def test_functions_see_the_configuration_in_the_new_and_the_old_form(double):
    assert configs({"y": sample_from(double), "x": choice([4])}) == [{"x": 4, "y": 8}]


def test_functions_reach_nested_values_whatever_their_names():
    space = {
        "model": {"items": choice([3]), "layers": [choice([5]), sample_from(lambda c: c.model.layers[0] + 1)]},
        "a": sample_from(lambda spec: spec.config.model.items),
        "b": sample_from(lambda spec: spec.config.model.layers[-1]),
        "c": sample_from(lambda config: config["missing"] if "missing" in config else config.get("other", 9)),
        "d": sample_from(lambda: 7),
    }
    config = configs(space)[0]
    assert (config["a"], config["b"], config["c"], config["d"]) == (3, 6, 9, 7)


def test_functions_are_called_after_those_that_they_depend_on():
    space = {
        "c": sample_from(lambda spec: spec.config.b + 1),
        "b": sample_from(lambda spec: spec.config.a * 2),
        "a": grid_search([1, 2]),
    }
    assert configs(space) == [{"a": 1, "b": 2, "c": 3}, {"a": 2, "b": 4, "c": 5}]


def test_functions_see_what_was_drawn_within_a_choice():
    space = {"y": sample_from(lambda spec: spec.config.o.lr), "o": choice([{"lr": uniform(0, 1)}])}
    config = configs(space)[0]
    assert config["y"] == config["o"]["lr"]


def test_a_function_may_return_parts_of_the_configuration_or_a_space():
    config = configs({"m": {"a": 1}, "copy": sample_from(lambda c: c["m"]), "all": sample_from(lambda c: {"c": c})})[0]
    assert type(config["copy"]) is dict
    assert config["copy"] == {"a": 1}
    assert config["copy"] is not config["m"]
    assert type(config["all"]["c"]) is dict
    chosen, config = variants({"a": sample_from(lambda: {"lr": uniform(2, 3)})})[0]
    assert 2 <= config["a"]["lr"] < 3
    assert chosen["a/lr"] == config["a"]["lr"]


def test_functions_that_need_each_other_are_an_error():
    space = {"a": sample_from(lambda c: c["b"]), "m": {"b": 1}, "b": sample_from(lambda c: c.a), "ok": choice([1])}
    with pytest.raises(RecursiveDependencyError, match="'a', 'b' need values that only they can give"):
        variants(space)
    with pytest.raises(RecursiveDependencyError, match="'m/x'.*'m/x' is not resolved"):
        variants({"m": {"x": sample_from(lambda c: c["m"]["x"])}})


def test_a_function_that_fails_is_named():
    with pytest.raises(ValueError, match="'m/x' raised KeyError: 'nope'") as caught:
        variants({"m": {"x": sample_from(lambda c: c["nope"])}})
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ValueError, match="no 'nope'"):
        variants({"x": sample_from(lambda spec: spec.config.nope), "y": 1})


class Opaque:
    def __deepcopy__(self, memo):
        raise AssertionError("copied")


def test_other_objects_pass_through_untouched():
    pandas = pytest.importorskip("pandas")
    objects = {
        "opaque": Opaque(),
        "function": len,
        "class": Opaque,
        "lambda": lambda spec: spec,
        "array": np.arange(3),
        "frame": pandas.DataFrame({"a": [1]}),
        "set": {1, 2},
    }
    config = configs({"g": grid_search([1]), "inner": [objects], "u": uniform(0, 1), "c": choice([objects["array"]])})[
        0
    ]
    for name, value in objects.items():
        assert config["inner"][0][name] is value
    assert config["c"] is objects["array"]


def test_variants_do_not_share_containers():
    space = {"l": [1, 2], "d": {"a": [3]}, "g": grid_search([1, 2]), "c": choice([{"x": [1]}])}
    first, second = configs(space)
    first["l"].append(5)
    first["d"]["a"].append(5)
    first["c"]["x"].append(5)
    assert (second["l"], second["d"], second["c"]) == ([1, 2], {"a": [3]}, {"x": [1]})
    assert space["l"] == [1, 2]
    assert space["c"].categories == [{"x": [1]}]


def test_text_is_not_evaluated():
    with pytest.raises(ValueError, match=r"'m/y'.*sample_from\(lambda spec: spec.config.x\)"):
        variants({"x": 1, "m": {"y": {"eval": "spec.config.x"}}})
    assert configs({"eval": {"every": 5}}) == [{"eval": {"every": 5}}]


def test_invalid_grids():
    assert grid_search(np.arange(2)) == {"grid_search": [0, 1]}
    assert grid_search(i for i in range(2)) == {"grid_search": [0, 1]}
    with pytest.raises(ValueError, match="`grid_search` needs at least one value"):
        grid_search([])
    with pytest.raises(TypeError, match="`grid_search` needs a list of values, got 'ab'"):
        grid_search("ab")
    with pytest.raises(ValueError, match="At 'm/x': `grid_search` needs at least one"):
        variants({"m": {"x": {"grid_search": []}}})
    with pytest.raises(TypeError, match="At 'x': `grid_search` needs a list"):
        variants({"x": {"grid_search": 5}})


def test_tags_are_fit_for_file_names():
    tags = [
        format_vars({("config", "model", "lr"): 1e-7, ("config", "p"): "/a/b c"}),
        format_vars({"x/0": [1, 2], "y": None, "z": True, "u": "é!"}),
        format_vars({(1,): 3, ("a",): 2}),
        format_vars({("run",): 1, ("a",): 12345.6789}),
    ]
    assert tags == ["lr=0.0000,p=a_b_c", "u=,0=1_2,y=None,z=True", "1=3,a=2", "a=12345.6789"]


def test_counting():
    spec = {"config": {"a": grid_search([1, 2]), "b": randint(0, 3)}, "num_samples": 4}
    assert count_variants(spec) == 8
    assert count_variants(spec, [{"a": 2, "b": 2}, {"a": 1}, {"b": 2}]) == 6
    assert count_variants({**spec, "num_samples": 1}, [{"a": 2}, {"a": 1}]) == 2
    assert count_variants({"config": {"a": grid_search([grid_search([1, 2]), 3]), "b": grid_search([1, 2])}}) == 6
    assert count_variants({"config": {"a": choice([grid_search([1, 2]), 3])}}) is None
    assert count_variants({"config": {"a": choice([grid_search([1, 2]), grid_search([3, 4])])}}) == 2


def test_splitting_a_specification():
    resolved, domains, grids = parse_spec_vars(
        {"z": grid_search([1]), "a": {"u": loguniform(1, 2), "c": [3, grid_search([4])]}}
    )
    assert resolved == [(("a", "c", 0), 3)]
    assert [path for path, _ in domains] == [("a", "u")]
    assert [path for path, _ in grids] == [("a", "c", 1), ("z",)]
    assert is_grid(grid_search([1]))
    assert not is_grid({"grid_search": [1], "other": 2})


def test_keys_of_different_types_can_be_ordered():
    found = variants({1: grid_search([1, 2]), "a": grid_search([3]), None: grid_search([4])})
    assert [chosen for chosen, _ in found] == [{"1": 1, "a": 3, "None": 4}, {"1": 2, "a": 3, "None": 4}]


def presets(space, point):
    found = get_preset_variants({"config": space}, point, random_state=np.random.default_rng(0))
    return [spec["config"] for _, spec in found]


def test_given_values_take_the_place_of_those_of_the_space():
    space = {"a": grid_search([1, 2]), "b": randint(0, 3), "n": {"c": uniform(0, 1), "l": [grid_search([1, 2]), 5]}}
    assert presets(space, {"a": 2, "b": 1, "n": {"c": 0.5, "l": [2, 5]}}) == [
        {"a": 2, "b": 1, "n": {"c": 0.5, "l": [2, 5]}}
    ]
    assert [config["a"] for config in presets(space, {"b": 1, "n/c": 0.5, "n": {"l": [1, 5]}})] == [1, 2]
    assert presets(space, {"a": 1, "n/c": 0.5})[0]["n"]["c"] == 0.5
    assert presets({"o": choice([{"lr": 1}, {"lr": 2}])}, {"o": {"lr": 2}}) == [{"o": {"lr": 2}}]


def test_given_values_outside_of_their_domain_are_used_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert presets({"b": randint(0, 3), "c": 1}, {"b": 9, "c": 2}) == [{"b": 9, "c": 2}]
    assert "The given value 9 of 'b'" in caplog.text
    assert "replaces the constant 1" in caplog.text


def test_given_values_must_be_in_the_space():
    with pytest.raises(ValueError, match=r"'momentun', which is not in the search space. Did you mean 'momentum'\?"):
        presets({"momentum": uniform(0, 1)}, {"momentun": 0.5})
    with pytest.raises(TypeError, match="must be a dict, got 3"):
        presets({"a": 1}, 3)


def test_flat_names():
    nested = {"a": {"b": 1, "e": {}}, "l": [1, {"x": 2}]}
    assert flatten(nested) == {"a/b": 1, "a/e": {}, "l": [1, {"x": 2}]}
    assert flatten(nested, flatten_list=True) == {"a/b": 1, "a/e": {}, "l/0": 1, "l/1/x": 2}
    assert flatten({"a": {"b": 1}}, ".") == {"a.b": 1}
    assert unflatten(flatten(nested)) == nested
    for clash in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}):
        with pytest.raises(ValueError, match="'a"):
            unflatten(clash)


def test_a_huge_grid_is_not_materialised():
    found = generate_variants({"config": {str(i): grid_search(range(100)) for i in range(10)}})
    assert next(found)[1]["config"] == dict.fromkeys(map(str, range(10)), 0)
    assert next(found)[1]["config"]["0"] == 1
    assert count_variants({"config": {str(i): grid_search(range(100)) for i in range(10)}}) == 100**10
