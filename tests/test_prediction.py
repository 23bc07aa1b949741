"""Reading data, forecasting and simulating: every kind of start, of file, and of bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tractax.deep_linear import BalancedEndToEnd, DeepModes, LambdaBalancedRiccati, LinearTask, TwoLayerModes
from tractax.prediction import forecast, initialise, load_data, load_digits, save_numbers, simulate


@pytest.fixture(scope="module")
def task():
    """Five correlated inputs, one of them redundant, and three targets."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 4)) @ generator.normal(size=(4, 5))
    y = x @ generator.normal(size=(5, 3)) + 0.3 * generator.normal(size=(60, 3))
    return LinearTask.from_data(jnp.asarray(x), jnp.asarray(y), center=True)


@pytest.mark.parametrize(
    ("options", "theory"),
    [
        ({}, LambdaBalancedRiccati),
        pytest.param({"width": 2}, LambdaBalancedRiccati, marks=pytest.mark.slow),
        pytest.param({"start": "lambda", "lam": -0.5}, LambdaBalancedRiccati, marks=pytest.mark.slow),
        ({"start": "aligned"}, TwoLayerModes),
        pytest.param({"start": "aligned", "depth": 3, "init_scale": 0.2}, DeepModes, marks=pytest.mark.slow),
        pytest.param({"depth": 3, "init_scale": 0.3}, BalancedEndToEnd, marks=pytest.mark.slow),
        pytest.param({"depth": 5}, BalancedEndToEnd, marks=pytest.mark.slow),
    ],
)
def test_forecast_agrees_with_the_simulation_that_follows(task, options, theory):
    model = initialise(task, key=jax.random.key(0), **options)
    predicted = forecast(model, task, start=options.get("start", "balanced"))
    assert isinstance(predicted.solution, theory)
    assert all(bool(assumption.holds) for assumption in predicted.assumptions)
    outcome = simulate(predicted)
    assert float(outcome.error.strength) < 1e-8 and float(outcome.error.loss) < 1e-8
    learned = ~np.isnan(predicted.learning_times)
    # A bottleneck leaves modes unlearned; they are reported as such, not waited for.
    assert learned.sum() == min(options.get("width", 3), 3)
    np.testing.assert_allclose(outcome.learning_times, predicted.learning_times, rtol=1e-6)
    # Everything that will be learned is learned well before the horizon.
    assert float(predicted.ts[-1]) == pytest.approx(1.5 * float(np.nanmax(predicted.learning_times)), rel=1e-2)


def test_learning_times_are_where_theory_crosses_half(task):
    predicted = forecast(initialise(task, key=jax.random.key(1)), task)
    for i, t in enumerate(predicted.learning_times):
        strength = predicted.reader.of_map(predicted.solution.product(t)).strength[i]
        assert float(strength) == pytest.approx(float(predicted.reader.singular_values[i]) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("depth", "scale", "horizon"), [(2, 1e-3, 1e5), pytest.param(3, 1e-3, 1.2e4, marks=pytest.mark.slow)]
)
def test_learning_times_of_modes_that_rise_between_two_points(task, depth, scale, horizon):
    model = initialise(task, start="aligned", depth=depth, init_scale=scale, key=jax.random.key(1))
    predicted = forecast(model, task, start="aligned", horizon=horizon)
    np.testing.assert_allclose(predicted.learning_times, predicted.solution.half_times(), rtol=1e-9)
    assert predicted.ts.shape == (400,) and np.all(np.diff(predicted.ts) > 0)


def test_random_starts_of_square_networks_avoid_the_saddle():
    square = LinearTask(jnp.asarray([[1.0, 0.3], [0.2, -0.7]]))
    keys = jax.random.split(jax.random.key(0), 8)
    for key, start in zip(keys, ["balanced", "lambda"] * 4, strict=True):
        model = initialise(square, start=start, width=2, key=key)
        assert float(LambdaBalancedRiccati.from_model(model, square).generic) > 1e-3


def test_modes_that_start_beyond_what_they_learn_are_not_waited_for(task):
    predicted = forecast(initialise(task, init_scale=3.0, key=jax.random.key(0)), task)
    started = predicted.reader(predicted.model).strength >= predicted.reader.singular_values / 2
    np.testing.assert_array_equal(np.isnan(predicted.learning_times), started)


def test_nothing_to_learn():
    x = jnp.asarray([[1.0], [1.0], [-1.0], [-1.0]])
    unrelated = LinearTask.from_data(x, jnp.asarray([1.0, -1.0, 1.0, -1.0]), center=True)
    with pytest.raises(ValueError, match="`task` must have something to learn"):
        forecast(initialise(unrelated, key=jax.random.key(0)), unrelated)


@pytest.mark.slow
def test_inputs_that_are_not_whitened_use_the_reduced_equations():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(50, 3)) * np.array([1.0, 0.7, 0.4])
    raw = LinearTask.from_data(jnp.asarray(x), jnp.asarray(x @ generator.normal(size=(3, 2))), whiten_inputs=False)
    predicted = forecast(initialise(raw, init_scale=0.1, key=jax.random.key(0)), raw)
    assert isinstance(predicted.solution, BalancedEndToEnd) and "reduced equations" in predicted.theory
    assert float(simulate(predicted).error.strength) < 1e-7


@pytest.mark.slow
def test_no_theory_is_said_and_simulated():
    raw = LinearTask(jnp.eye(2), jnp.diag(jnp.asarray([1.0, 2.0])))
    model = initialise(raw, start="lambda", lam=0.3, init_scale=0.1, key=jax.random.key(0))
    predicted = forecast(model, raw, start="lambda", horizon=5.0)
    assert predicted.solution is None and "simulation only" in predicted.theory
    outcome = simulate(predicted)
    assert outcome.error is None and float(outcome.reading.loss[-1]) < float(outcome.reading.loss[0])


@pytest.mark.slow
def test_numbers_come_back(task, tmp_path):
    predicted = forecast(initialise(task, key=jax.random.key(0)), task)
    outcome = simulate(predicted)
    with np.load(save_numbers(tmp_path / "run.NPZ", predicted, outcome)) as numbers:
        np.testing.assert_array_equal(numbers["predicted_strength"], predicted.reading.strength)
        np.testing.assert_array_equal(numbers["simulated_learning_time"], outcome.learning_times)
    assert [path.name for path in tmp_path.iterdir()] == ["run.NPZ"]
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        save_numbers(tmp_path / "run.txt", predicted, outcome)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "`depth` and `width`"),
        ({"width": 0}, "`depth` and `width`"),
        ({"init_scale": -1.0}, "`init_scale` must be positive"),
        ({"init_scale": float("nan")}, "`init_scale` must be finite"),
        ({"start": "lambda", "depth": 3}, "`depth` must be 2"),
        ({"start": "lambda", "lam": 1.0, "width": 9}, "hidden <= "),
        ({"lam": 1.0}, "`lam` is for start"),
    ],
)
def test_bad_options(task, options, message):
    with pytest.raises(ValueError, match=message):
        initialise(task, key=jax.random.key(0), **options)


def test_bad_horizon(task):
    model = initialise(task, key=jax.random.key(0))
    with pytest.raises(ValueError, match="`horizon` must be positive"):
        forecast(model, task, horizon=-1.0)


def test_digits():
    digits = load_digits()
    assert digits.inputs.shape == (1797, 64) and digits.targets.shape == (1797, 10)
    assert digits.classes == tuple("0123456789")
    assert digits.inputs.min() == 0 and digits.inputs.max() == 1
    assert np.all(digits.targets.sum(axis=1) == 1)
    assert "3 of 64 inputs are constant" in digits.notes[0]


def test_csv_with_names_and_text_labels(tmp_path):
    path = tmp_path / "flowers.csv"
    path.write_text("width,species,height\n1.0,rose,2.0\n1.5,tulip,0.5\n0.5,rose,2.5\n2.0,tulip,1.0\n")
    data = load_data(path, "species")
    assert data.classes == ("rose", "tulip") and data.name == "flowers"
    np.testing.assert_array_equal(data.inputs, [[1, 2], [1.5, 0.5], [0.5, 2.5], [2, 1]])
    np.testing.assert_array_equal(data.targets, [[1, 0], [0, 1], [1, 0], [0, 1]])


def test_csv_without_names_takes_the_last_column(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("1,2,0.3\n3,4,0.1\n5,7,0.2\n")
    data = load_data(path)
    assert data.classes is None
    np.testing.assert_array_equal(data.targets, [[0.3], [0.1], [0.2]])
    np.testing.assert_array_equal(load_data(path, "0,2").inputs, [[2], [4], [7]])


def test_csv_with_blank_lines_quoted_names_and_labels_that_are_numbers(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('"a, b", label ,c\n\n1,1.0,2\n3,1,4\n , ,\n5,2,7\n6,2,9\n')
    data = load_data(path, "label")
    assert data.classes == ("1", "2")
    np.testing.assert_array_equal(data.inputs, [[1, 2], [3, 4], [5, 7], [6, 9]])
    np.testing.assert_array_equal(load_data(path, "a, b", labels="values").targets[:, 0], [1, 3, 5, 6])


def test_a_file_of_text_labels_without_a_name(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n3,5\n4,1\n")
    (tmp_path / "y.csv").write_text("rose\ntulip\nrose\n")
    data = load_data(tmp_path / "x.csv", str(tmp_path / "y.csv"))
    assert data.classes == ("rose", "tulip")
    np.testing.assert_array_equal(data.targets[:, 0], [1, 0, 1])


def test_arrays_and_a_separate_file_of_targets(tmp_path):
    x, labels = np.arange(12.0).reshape(6, 2) ** 2, np.array([0, 1, 0, 1, 2, 2])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    np.savez(tmp_path / "both.npz", inputs=x, labels=labels)
    for data in (
        load_data(tmp_path / "x.npy", str(tmp_path / "y.npy")),
        load_data(tmp_path / "both.npz"),
        load_data(tmp_path / "both.npz", "labels"),
    ):
        np.testing.assert_array_equal(data.inputs, x)
        np.testing.assert_array_equal(data.targets, np.eye(3)[labels])
    values = load_data(tmp_path / "both.npz", labels="values")
    assert values.classes is None and values.targets.shape == (6, 1)


@pytest.mark.parametrize(
    ("name", "content", "targets", "message"),
    [
        ("empty.csv", "", None, "is empty"),
        ("data.txt", "1,2\n", None, "readable .npz, .npy or .csv"),
        ("broken.npz", "not a zip file", None, "readable .npz"),
        ("broken.npy", "not an array", None, "readable .npz, .npy or .csv"),
        ("nan.csv", "1,nan,1\n2,3,2\n4,5,3.5\n", None, r"`inputs` must be finite; .* row 0, column 1"),
        ("ragged.csv", "1,2\n3\n", None, "readable .npz, .npy or .csv"),
        ("text.csv", "a,b\n1,x\nz,3\n", "a", r"`inputs` must be numbers; 'x' is not in row 0, column 0 \(1 in all\)"),
        ("gap.csv", "a,b\n1,,5\n2,3,4\n", None, "line 1 has 3 cells, line 0 has 2"),
        ("gap.csv", "a,b\n,5\n2,3\n", None, "there is an empty cell in row 0, column 0"),
        ("blank.csv", " \n , \n", None, "it is blank"),
        ("semicolons.csv", "1;2\n3;4\n", None, "Cells are separated by commas"),
        ("typo.csv", "1,2.5\n2,3.5\n3,4..5\n", None, "`targets` must be numbers; '4..5' is not"),
        ("labels.csv", "1,x\n2,\n3,x\n", None, "a label in every row; there is none in row 1"),
        ("twice.csv", "a,a,b\n1,2,3\n4,5,7\n", "a", "2 are called 'a'"),
        ("twice.csv", "a,b,c\n1,2,3\n4,5,7\n", "b,1", "name every column once"),
        ("constant.csv", "1,2.5\n2,2.5\n3,2.5\n4,2.5\n", None, "`targets` must vary"),
        ("single.csv", "1,2\n", None, "at least two examples"),
        ("columns.csv", "a,b\n1,2\n3,4\n", "c", r"name columns of the table \(columns: a, b\)"),
        ("columns.csv", "a,b\n1,2\n3,4\n", "7", "columns from 0 to 1"),
        ("columns.csv", "a,b\n1,2\n3,4\n", "a,b", "leave columns for the inputs"),
    ],
)
def test_bad_files(tmp_path, name, content, targets, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_data(path, targets)


def test_bad_archives(tmp_path):
    with pytest.raises(ValueError, match="there is none at"):
        load_data(tmp_path / "missing.csv")
    path = tmp_path / "odd.npz"
    np.savez(path, a=np.ones((3, 2)), b=np.arange(3.0))
    with pytest.raises(ValueError, match="`data` must hold targets under one of the names"):
        load_data(path)
    with pytest.raises(ValueError, match="must name an array of the file"):
        load_data(path, "c")
    np.savez(path, inputs=np.random.default_rng(0).normal(size=(3, 2)), targets=np.arange(4.0) / 7)
    with pytest.raises(ValueError, match="one row for each of the 3 inputs"):
        load_data(path)
    np.savez(path, inputs=np.eye(3) + 1j, targets=np.arange(3.0))
    with pytest.raises(ValueError, match="`inputs` must be real numbers, or text; got dtype complex128"):
        load_data(path)
    np.savez(path, inputs=np.eye(3), targets=np.arange(3).astype("datetime64[D]"))
    with pytest.raises(ValueError, match="`targets` must be real numbers, or text; got dtype datetime64"):
        load_data(path)
    np.savez(path, inputs=np.ones((3, 2)), targets=np.array(["a", "b", object()], dtype=object))
    with pytest.raises(ValueError, match=r"readable \.npz"):
        load_data(path)
