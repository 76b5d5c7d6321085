"""The loop: it trains, evaluates, stops when asked to, and goes on as if it had never stopped."""

import io
import json
import os
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from training.tiny import Source, Tiny, TinyConfig, assert_same, evaluate_fn, loss_fn, tiny, validation

from flaxformer_edu.errors import InputError
from flaxformer_edu.runs import open_model, read_rows
from flaxformer_edu.training import DivergedError, LoopConfig, Optimizer, fit, split_model

LOOP = LoopConfig(steps=14, evaluate_every=5, save_every=4, ema_decay=0.9, clip_norm=1.0)


def train(folder=None, config=LOOP, source=None, *, rate=0.2, scale=1, console=None, **options):
    """Train the tiny model with dropout and evaluation."""
    options = {"evaluate_fn": evaluate_fn, "validation": validation, **options}
    optimizer = Optimizer(learning_rate=0.01 * scale, schedule="cosine", warmup_steps=2)
    console = console or Console(file=io.StringIO())
    return fit(
        tiny(rate=rate), loss_fn, optimizer, source or Source(), config, folder=folder, console=console, **options
    )


class Interrupting(Source):
    """Sends this process a signal when asked for the batch of a step, by the steps: the first batch is compared."""

    def __init__(self, step, number=signal.SIGTERM):
        super().__init__()
        self.step, self.number, self.compared = step, number, False

    def __call__(self, step):
        if step == self.step and self.compared:
            os.kill(os.getpid(), self.number)
        self.compared = True
        return super().__call__(step)


def test_it_learns():
    result = train(config=LoopConfig(steps=150, evaluate_every=75))
    evaluations = [row for row in result.rows if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [75, 150]
    assert evaluations[-1]["eval_accuracy"] > 0.7
    assert [row["step"] for row in result.rows if "loss" in row] == list(range(1, 151))
    logits = result.model(validation()[0]["inputs"])
    assert (logits.argmax(-1) == validation()[0]["labels"]).mean() > 0.7


def test_what_is_evaluated_is_the_average(tmp_path):
    result = train(tmp_path)
    batches = validation()
    losses = [evaluate_fn(result.model, jax.tree.map(jnp.asarray, batch))["loss"][batch["mask"]] for batch in batches]
    np.testing.assert_allclose(result.rows[-1]["eval_loss"], np.concatenate(losses).mean(), rtol=1e-5)
    assert_same(split_model(result.model)[1], result.state.average)


@pytest.mark.parametrize(
    ("calls", "number", "stops"), [(1, signal.SIGTERM, [0, 3, 4, 8, 13]), (3, signal.SIGINT, [1, 4, 9, 13])]
)
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(tmp_path, calls, number, stops):
    """Stopped in the first and the last call, at checkpoints, at evaluations and between them."""
    config = LoopConfig(**{**vars(LOOP), "steps_per_call": calls})
    expected = train(tmp_path / "whole", config)
    for step in stops:
        with pytest.raises(SystemExit) as left:
            train(tmp_path / "stopped", config, Interrupting(step, number))
        assert left.value.code == 128 + number
    result = train(tmp_path / "stopped", config)
    assert_same(result.state, expected.state)
    assert result.rows == expected.rows
    for name in ("metrics.jsonl", "run.json", "model.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_begun_before_names_changed_is_resumed(tmp_path):
    """Its settings are written with the names of then; what they say is compared nevertheless."""
    expected = train(tmp_path / "whole")
    with pytest.raises(SystemExit):
        train(tmp_path / "old", source=Interrupting(6))
    path = tmp_path / "old" / "run.json"
    described = json.loads(path.read_text())
    described["optimiser"] = {**described.pop("optimizer"), "$class": "flaxformer_edu.training.optimisers:Optimiser"}
    described["loop"]["$class"] = "flaxformer_edu.training.config:LoopConfig"
    path.write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"loop\.steps: 14 in the folder, 15 now"):
        train(tmp_path / "old", LoopConfig(**{**vars(LOOP), "steps": 15}))
    assert_same(train(tmp_path / "old").state, expected.state)


def test_the_signals_have_their_usual_effect_afterwards(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    class Impatient(Source):
        def __call__(self, step):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return super().__call__(step)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, source=Impatient())
    assert read_rows(tmp_path / "metrics.jsonl")[0] == []


def test_without_a_folder_ctrl_c_is_what_it_always_is():
    with pytest.raises(KeyboardInterrupt):
        train(source=Interrupting(3, signal.SIGINT))


def test_it_runs_outside_of_the_main_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert results[0].rows[-1]["step"] == LOOP.steps


def test_a_finished_run_is_opened_and_not_repeated(tmp_path):
    class Unused(Source):
        def __call__(self, step):
            assert step == 0  # which is compared
            return super().__call__(step)

    expected = train(tmp_path)
    result = train(tmp_path, source=Unused())
    assert_same(result.state, expected.state)
    assert result.rows == expected.rows


def test_a_run_leaves_its_model_metrics_and_curves(tmp_path):
    result = train(tmp_path, notes={"classes": ["a", "b"]})
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.json", "run.json", "metrics.jsonl", "curves.png", "checkpoints"
    }  # fmt: skip
    model, notes = open_model(tmp_path, which="latest", classes=[Tiny, TinyConfig])
    assert notes == {"classes": ("a", "b")}
    assert_same(split_model(model)[1], split_model(result.model)[1])


def test_the_best_checkpoint_is_kept_and_opened(tmp_path):
    """Evaluated is the distance of the step from 10, so that step 10 is best."""

    def distance(model, batch):
        return {"distance": jnp.broadcast_to(jnp.abs(model.head.bias[0] - 10), batch["mask"].shape)}

    def count_up(model, batch, rngs):
        return -model.head.bias[...].sum(), {}

    config = LoopConfig(steps=15, evaluate_every=5, best_metric="distance")
    options = {"config": config, "folder": tmp_path, "console": Console(file=io.StringIO())}
    fit(tiny(), count_up, Optimizer(name="sgd", learning_rate=1.0), Source(), evaluate_fn=distance,
        validation=validation, **options)  # fmt: skip
    classes = [Tiny, TinyConfig]
    best, latest = (open_model(tmp_path, which=which, classes=classes)[0] for which in ("best", "latest"))
    assert (best.head.bias[0], latest.head.bias[0]) == (10, 15)


def test_other_settings_are_refused(tmp_path):
    train(tmp_path, settings={"data": "digits"})
    with pytest.raises(InputError, match=r"settings\.data: digits in the folder, cifar10 now\).*choose another folder"):
        train(tmp_path, settings={"data": "cifar10"})
    with pytest.raises(InputError, match=r"loop\.steps: 14 in the folder, 15 now"):
        train(tmp_path, LoopConfig(**{**vars(LOOP), "steps": 15}), settings={"data": "digits"})
    with pytest.raises(InputError, match=r"config\.dropout: 0\.2 in the folder, 0\.3 now"):
        train(tmp_path, rate=0.3, settings={"data": "digits"})


class Poisoned(Source):
    """Features that overflow the loss from some step on."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def __call__(self, step):
        batch = super().__call__(step)
        return {**batch, "inputs": batch["inputs"] * (np.nan if step >= self.step else 1)}


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path):
    expected = train(tmp_path / "good")
    left = r"the last good checkpoint is that of step 10\. The batch of step 11 holds NaN or infinities in inputs: mend"
    with pytest.raises(DivergedError, match=f"the loss is nan at step 11; {left}"):
        train(tmp_path / "bad", source=Poisoned(10))
    assert read_rows(tmp_path / "bad" / "metrics.jsonl")[0] == read_rows(tmp_path / "good" / "metrics.jsonl", 10)[0]
    resumed = train(tmp_path / "bad")
    assert_same(resumed.state, expected.state)


def test_a_loss_that_explodes_though_the_data_is_fine():
    said = r"the loss is \S+e\+36 at step 2, over a million times the first one; .*\. Lower the learning rate, "
    with pytest.raises(DivergedError, match=said):
        train(config=LoopConfig(steps=14), scale=1e38)


def test_an_evaluation_that_is_not_finite_is_not_the_best(tmp_path):
    said = io.StringIO()

    def poisoned():
        return [{**batch, "inputs": batch["inputs"] * np.nan} for batch in validation()]

    train(tmp_path, validation=poisoned, console=Console(file=said))
    assert "loss is nan on the validation data: step 14 is not counted as the best" in said.getvalue()
    assert read_rows(tmp_path / "metrics.jsonl")[0][-1]["eval_loss"] is None


def test_a_loss_that_is_not_finite_before_any_checkpoint(tmp_path):
    with pytest.raises(DivergedError, match="the loss is nan at step 2; no checkpoint was saved"):
        train(tmp_path, source=Poisoned(1))
    with pytest.raises(DivergedError, match="the loss is nan at step 14; no checkpoint was saved"):
        train(source=Poisoned(13))


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    """The loss of step 4 is still finite, its gradient is not."""

    def infinite_gradient(model, batch, rngs):
        scale = jnp.where(batch["inputs"][0, 0] == 0, 0.0, 1.0)
        return (jnp.sqrt(scale * (model.head.bias[...] + 1) ** 2)).sum(), {}

    class ZeroAt3(Source):
        def __call__(self, step):
            batch = super().__call__(step)
            return {**batch, "inputs": batch["inputs"] * (step != 3)}

    config = LoopConfig(steps=8, save_every=2)
    options = {"config": config, "folder": tmp_path, "console": Console(file=io.StringIO())}
    with pytest.raises(DivergedError, match=r"no longer finite after step 4; .* checkpoint is that of step 2"):
        fit(tiny(), infinite_gradient, Optimizer(), ZeroAt3(), **options)
    model, _ = open_model(tmp_path, classes=[Tiny, TinyConfig])
    assert np.isfinite(model.head.bias[...]).all()


def test_lines_where_there_is_no_terminal(tmp_path):
    text = io.StringIO()
    train(tmp_path, console=Console(file=text))
    assert "step 5  evaluation:  accuracy" in text.getvalue()
    assert "step 14/14  loss" in text.getvalue()
    assert "\x1b" not in text.getvalue()


def test_a_bar_on_a_terminal():
    text = io.StringIO()
    train(console=Console(file=text, force_terminal=True, width=100))
    assert "step 14/14" in text.getvalue()
    assert "\x1b" in text.getvalue()


def test_a_stopped_run_says_how_to_go_on(tmp_path):
    text = io.StringIO()
    with pytest.raises(SystemExit):
        train(tmp_path, source=Interrupting(6), console=Console(file=text))
    assert "stopped after step 7" in text.getvalue()
    assert (tmp_path / "checkpoints" / "7").is_dir()
    assert json.loads((tmp_path / "run.json").read_text())["loop"]["steps"] == 14


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 1, "evaluate_every": 0}, {"steps": 1, "accumulate": -1}])
def test_wrong_counts(settings):
    with pytest.raises(InputError, match="expected 1 or more"):
        LoopConfig(**settings)
