import math
import sys
from types import SimpleNamespace

import pytest

from mltoolkit.tune import plot
from mltoolkit.tune._plot_data import MISSING, Scale, is_log_like
from mltoolkit.tune._plot_rungs import infer_rungs

pd = pytest.importorskip("pandas")
matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True, scope="module")
def _headless():
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
    matplotlib.use(before)


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def result(index, losses, **config):
    rows = [{"loss": loss, "training_iteration": i + 1, "time_total_s": 0.5 * (i + 1)} for i, loss in enumerate(losses)]
    config = {"constant": 1, **config}
    metrics = {**rows[-1], "trial_id": f"t{index}", "config": config}
    return SimpleNamespace(config=config, metrics=metrics, metrics_dataframe=pd.DataFrame(rows), path=None)


def sweep():
    """Trials that stop at 1, 3 and 9, better with a lower `lr`."""
    results = []
    for i in range(18):
        lr = 10 ** (-4 + i / 6)
        stop = 9 if i < 2 else 3 if i < 6 else 1
        losses = [(1 + i) / (k + 1) for k in range(stop)]
        results.append(result(i, losses, lr=lr, net={"act": "relu" if i % 2 else "tanh", "width": 16 * (1 + i % 3)}))
    return results


def draw(ax):
    ax.figure.draw_without_rendering()  # what matplotlib cannot lay out raises here


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_learning_curves_draw_each_trial_and_name_the_best():
    ax = plot.learning_curves(sweep(), "loss", mode="min")
    draw(ax)
    assert len(ax.collections[0].get_segments()) == 18
    assert ax.get_xlabel() == "training_iteration"
    assert ax.get_ylabel() == "loss"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["best: t0"]
    best = ax.lines[0]
    assert best.get_xdata().tolist() == list(range(1, 10))
    assert best.get_ydata()[-1] == pytest.approx(1 / 9)
    assert ax.figure.axes[1].get_ylabel() == "last loss"


def test_learning_curves_over_another_axis_in_given_axes():
    from matplotlib.figure import Figure

    given = Figure().subplots()
    ax = plot.learning_curves(sweep(), "loss", mode="max", x="time_total_s", ax=given)
    assert ax is given
    draw(ax)
    assert ax.get_xlabel() == "time_total_s"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["best: t17"]


def test_curves_over_orders_of_magnitude_have_a_logarithmic_axis():
    results = [result(i, [10.0**-k for k in range(6)], lr=i) for i in range(2)]
    assert plot.learning_curves(results, "loss", mode="min").get_yscale() == "log"
    assert plot.learning_curves(sweep()[:2], "loss", mode="min").get_yscale() == "linear"


def test_parallel_coordinates_show_what_differs():
    ax = plot.parallel_coordinates(sweep(), "loss", mode="min")
    draw(ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["lr", "act", "width", "loss"]
    marks = texts(ax)
    assert marks[:4] == ["0.0001", "0.001", "0.01", "0.0681"]  # both ends of a logarithmic axis, and round numbers
    assert {"relu", "tanh", "16", "32", "48"} <= set(marks)
    segments = ax.collections[0].get_segments()
    assert len(segments) == 18
    best = ax.lines[0].get_ydata()
    assert list(best) == pytest.approx([0.0, 0.75, 0.0, 0.0], abs=1e-9)


def test_parallel_coordinates_of_chosen_parameters():
    ax = plot.parallel_coordinates(sweep(), "loss", mode="min", params=["net/width", "constant"])
    draw(ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["width", "constant", "loss"]
    with pytest.raises(
        ValueError, match="No parameter is called 'momentum'. There are: constant, lr, net/act, net/width"
    ):
        plot.parallel_coordinates(sweep(), "loss", params=["momentum"])


def test_parallel_coordinates_of_a_conditional_space():
    results = [result(0, [1.0], kind="a", depth=3), result(1, [2.0], kind="b"), result(2, [3.0], kind="a", depth=5)]
    ax = plot.parallel_coordinates(results, "loss", mode="min")
    draw(ax)
    without = ax.collections[0].get_segments()[1]
    assert without[1][1] < 0  # below the axis of what it does not have


def test_importance_finds_the_parameter_that_matters():
    pytest.importorskip("optuna")
    pytest.importorskip("sklearn")
    ax = plot.parameter_importance(sweep(), "loss", mode="min")
    draw(ax)
    names = [label.get_text() for label in ax.get_yticklabels()]
    shares = [bar.get_width() for bar in ax.patches]
    assert names[-1] == "lr"
    assert sorted(names) == ["act", "lr", "width"]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares)


def test_importance_says_what_it_lacks(monkeypatch):
    same = [result(i, [1.0], lr=i) for i in range(3)]
    with pytest.raises(ValueError, match="two trials at least that differ in parameters and in 'loss'"):
        plot.parameter_importance(same, "loss", mode="min")
    conditional = [result(0, [1.0], lr=1, depth=3), result(1, [2.0], lr=2)]
    with pytest.raises(ValueError, match="Not all trials have the parameter 'depth'"):
        plot.parameter_importance(conditional, "loss", params=["depth"])
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="parameter_importance needs optuna"):
        plot.parameter_importance(sweep(), "loss", mode="min")


def test_asha_rungs_count_who_ended_where():
    ax = plot.asha_rungs(sweep(), "loss", mode="min")
    draw(ax)
    assert texts(ax) == ["12 stopped\n6 left", "4 stopped\n2 left", "2 to the end"]
    assert ax.get_xticks().tolist() == [1, 3, 9]
    assert ax.get_xscale() == "log"
    marks = ax.collections[-1].get_offsets()
    assert sorted({x for x, _ in marks.tolist()}) == [1, 3, 9]
    assert len(marks) == 18


def test_metric_and_mode_of_the_sweep_are_taken():
    class Analysis:
        default_metric = "loss"
        default_mode = "max"

        def __init__(self, results):
            self.trials = [
                SimpleNamespace(trial_id=key, trial_name=f"train_{key}", config=r.config, last_result=r.metrics)
                for key, r in ((r.metrics["trial_id"], r) for r in results)
            ]
            self.trial_dataframes = {r.metrics["trial_id"]: r.metrics_dataframe for r in results}

    ax = plot.learning_curves(Analysis(sweep()))
    assert legend(ax) == ["best: train_t17"]

    class Grid(list):
        _experiment_analysis = Analysis(sweep())

    for function in (plot.learning_curves, plot.parallel_coordinates, plot.asha_rungs):
        assert legend(function(Grid(sweep()), mode="min")) == ["best: train_t0"]


def test_results_alone_are_named_by_their_folders():
    results = sweep()[:2]
    results[0].path = "/results/exp/train_t0_0_lr=0.1_2026-01-01_00-00-00"
    assert legend(plot.learning_curves(results, "loss")) == ["best: train_t0"]
    results[0].path = "/results/exp/named_otherwise"
    assert legend(plot.learning_curves(results, "loss")) == ["best: t0"]


def test_trials_of_one_name_are_told_apart():
    class Grid(list):
        _experiment_analysis = SimpleNamespace(
            trials=[SimpleNamespace(trial_id=f"t{i}", trial_name="same") for i in range(18)]
        )

    ax = plot.learning_curves(Grid(sweep()), "loss", mode="min")
    assert len(ax.collections[0].get_segments()) == 18
    assert legend(ax) == ["best: same"]


@pytest.mark.parametrize("function", [plot.learning_curves, plot.parallel_coordinates, plot.asha_rungs])
def test_odd_results_are_left_out(function):
    results = [*sweep()[:4], result(20, [float("nan")], lr=1.0), result(21, [math.inf], lr=2.0)]
    results.append(SimpleNamespace(config={"lr": 3.0}, metrics=None, metrics_dataframe=None, path=None))
    draw(function(results, "loss", mode="min"))


@pytest.mark.parametrize("function", [plot.learning_curves, plot.asha_rungs, plot.parallel_coordinates])
def test_a_single_trial_can_be_drawn(function):
    options = {"params": ["lr"]} if function is plot.parallel_coordinates else {}
    draw(function(sweep()[:1], "loss", **options))


def test_what_cannot_be_plotted_is_named():
    with pytest.raises(ValueError, match="Nothing says which metric to plot"):
        plot.learning_curves(sweep())
    with pytest.raises(ValueError, match="None of the 18 trials has reported the metric 'acc'"):
        plot.learning_curves(sweep(), "acc")
    with pytest.raises(ValueError, match="None of the 1 trials has reported the metric 'loss' as a finite number"):
        plot.learning_curves([result(0, [math.inf])], "loss")
    with pytest.raises(ValueError, match="No trial has a history with both 'loss' and 'epoch'"):
        plot.learning_curves(sweep(), "loss", x="epoch")
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'lowest'"):
        plot.learning_curves(sweep(), "loss", mode="lowest")
    with pytest.raises(ValueError, match="do not differ in any parameter"):
        plot.parallel_coordinates([result(i, [float(i)]) for i in range(3)], "loss")
    with pytest.raises(TypeError, match="take a ResultGrid or an ExperimentAnalysis, got 3"):
        plot.learning_curves(3, "loss")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'tune.plot needs matplotlib.*"mltoolkit\[plot\]"'):
        plot.learning_curves(sweep(), "loss")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1e-5, 1e-4, 1e-2], True), ([1, 2, 3], False), ([-1, 1, 100], False), ([], False), ([1, 90, 95, 100], False)],
)
def test_logarithmic_spreads_are_told_from_others(values, expected):
    assert is_log_like(values) is expected


def test_scales_of_choices_and_of_one_value():
    scale = Scale([True, False, None])
    assert [scale.position(value) for value in (False, True, None)] == pytest.approx([1 / 6, 0.5, 5 / 6])
    assert [label for label, _ in scale.ticks()] == ["False", "True", "None"]
    assert Scale([7, 7]).ticks() == [("7", 0.5)]


def test_scales_tell_none_from_what_is_missing():
    scale = Scale([10, None, 9, MISSING, 100])
    assert [label for label, _ in scale.ticks()] == ["9", "10", "100", "None", "(not set)"]
    scale = Scale([*range(50), None, MISSING])  # too many to be choices
    assert scale.position(None) == scale.position(MISSING) < 0
    assert [label for label, _ in scale.ticks()] == ["0", "12.2", "24.5", "36.8", "49"]
    assert [label for label, _ in Scale(["b", None, 2, "a"]).ticks()] == ["2", "a", "b", "None"]


def asha_like():
    """Most trials end early with a bad value; in the best ones it goes down by orders of magnitude."""
    results = []
    for i in range(20):
        stop = 27 if i < 3 else 3 if i < 6 else 1
        results.append(result(i, [1.6 * (0.75 + 0.02 * i) ** k for k in range(stop)], lr=10 ** (-i / 5)))
    return results


@pytest.mark.parametrize("function", [plot.learning_curves, plot.asha_rungs, plot.parallel_coordinates])
def test_colours_are_logarithmic_where_the_metric_is(function):
    ax = function(asha_like(), "loss", mode="min")
    draw(ax)
    assert ax.figure.axes[1].get_yscale() == "log"
    if function is not plot.parallel_coordinates:
        assert ax.get_yscale() == "log"
    ends = [float(label.get_text()) for label in ax.figure.axes[1].get_yticklabels()]
    assert ends[0] == pytest.approx(1.6 * 0.75**26, rel=0.01)
    narrow = [result(i, [1.0 + i / 10], lr=i) for i in range(4)]
    assert function(narrow, "loss", mode="min").figure.axes[1].get_yscale() == "linear"


def test_the_metric_of_parallel_coordinates_is_spread_out():
    def heights(mode):
        ax = plot.parallel_coordinates(asha_like(), "loss", mode=mode)
        return sorted(segment[-1][1] for segment in ax.collections[0].get_segments())

    assert heights("min")[3] > 0.8  # the three good ones have four fifths of the axis
    assert heights("max")[3] < 0.7  # the good ones are the many high values: a linear axis shows these


def test_rungs_at_which_nobody_stopped_are_shown():
    ax = plot.asha_rungs(asha_like(), "loss", mode="min")
    draw(ax)
    assert ax.get_xticks().tolist() == [1, 3, 9, 27]
    assert texts(ax) == ["14 stopped\n6 left", "3 stopped\n3 left", "none stopped\n3 left", "3 to the end"]
    ax = plot.asha_rungs(asha_like(), "loss", mode="min", rungs=[1, 5, 25, 125])
    assert ax.get_xticks().tolist() == [1, 3, 5, 25, 27]


@pytest.mark.parametrize(
    ("ends", "rungs"),
    [
        ([1, 3, 9, 27], [1, 3, 9, 27]),
        ([1, 27], [1, 3, 9, 27]),
        ([2, 8, 32], [2, 8, 32]),
        ([2, 4, 32], [2, 4, 8, 16, 32]),
        ([1, 3, 100], [1, 3, 9, 27, 81]),
        ([0.5, 1.0, 4.0], [0.5, 1.0, 2.0, 4.0]),
        ([5, 7], []),
        ([4], []),
        ([0, 1, 3], []),
        ([], []),
    ],
)
def test_rungs_are_told_from_the_ends_of_trials(ends, rungs):
    assert infer_rungs(ends) == rungs


def test_long_curves_are_thinned_to_what_a_figure_can_show():
    results = [result(i, [1.0 / (k + 1 + i) for k in range(5000)], lr=i) for i in range(2)]
    ax = plot.learning_curves(results, "loss", mode="min")
    for segment in ax.collections[0].get_segments():
        assert len(segment) <= 401
        assert (segment[0][0], segment[-1][0]) == (1, 5000)
    assert ax.figure.dpi == 100
