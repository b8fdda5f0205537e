"""Benchmarks: equal work on both sides, correct counts, end-to-end run."""

import json
import logging
import statistics
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback

import bench
import plot_bench
from benchmarks import (
    embedded_job,
    fireopd_runs,
    interleaving,
    length_mix,
    naive_loop,
    peak_memory,
    ratios,
    scaling_laws,
    scoring_variants,
    training_steps,
    trl_trainer,
    workloads,
)
from benchmarks.settings import Settings
from fireopd.models.loading import load_causal_lm

QUICK = ["naive", "dropping", "teachers", "padding", "plugins", "decoding"]
"""Benchmarks that start no process and need no TRL."""


class TrainingBatches(Callback):
    """Stores the batches of a run."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)


@pytest.fixture(autouse=True)
def _loud():
    """Restore the log levels of Lightning after a benchmark."""
    loggers = [logging.getLogger(name) for name in bench.QUIETENED]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def our_gradient(tmp_path, *settings):
    """Return batch and gradient of one training step with SGD of rate 1, whose gradient is the change of weights."""
    sizes = Settings.quick(response_length=32, rows=12)
    training = TrainingBatches()
    cli = fireopd_runs.run(
        [
            *fireopd_runs.embedded_arguments(sizes, *settings, "--trainer.limit_train_batches", "1"),
            *("--model.optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 1.0}}", "--model.scheduler", "null"),
            *("--model.gradient_clip", "null", "--model.importance_cap", "null"),
            *("--trainer.default_root_dir", str(tmp_path)),
        ],
        engine=workloads.RecordedEngine(max_response_length=32, median=8),
        callbacks=[training],
    )
    before = load_causal_lm("tiny/student", "student", "float32").state_dict()
    after = dict(cli.model.student.model.named_parameters())
    return training.batches[0], {name: before[name] - value.detach() for name, value in after.items()}


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (
            {"drop_fraction": 0.0, "alpha": 0.0, "beta": 0.0},
            ["--model.trajectory_filter", "KeepAll", "--model.token_weighter", "UniformWeighter"],
        ),
        ({}, []),
    ],
    ids=["plain OPD", "FiRe-OPD"],
)
def test_the_naive_loop_learns_what_we_learn(tmp_path, recipe, settings):
    batch, gradient = our_gradient(tmp_path, *settings)
    models = {name: load_causal_lm(f"tiny/{name}", "model", "float32") for name in ("student", "math", "code")}
    student = models.pop("student")
    scale = max(value.abs().max() for value in gradient.values())
    for micro_batch in (1, 5):
        student.zero_grad()
        loop = naive_loop.NaiveLoop(student, models, naive_loop.Recipe(**recipe, micro_batch=micro_batch), [1])
        loop.backward(batch.tokens, batch.attention_mask, batch.response_mask, batch.teachers)
        for name, parameter in student.named_parameters():
            torch.testing.assert_close(parameter.grad / scale, gradient[name] / scale, atol=2e-4, rtol=0)


def test_padding_on_the_left_changes_nothing_for_the_naive_loop(tiny_prompts):
    model = load_causal_lm("tiny/student", "model", "float32")
    loop = naive_loop.NaiveLoop(model, {}, naive_loop.Recipe(micro_batch=3, response_length=4), [1])
    tokens, attention, mask = loop.roll_out(tiny_prompts[:3])
    together, entropies = loop.score(model, tokens, attention)
    for row, prompt in enumerate(tiny_prompts[:3]):
        alone = tokens[row, attention[row]][None]
        assert tuple(alone[0, : len(prompt.tokens)].tolist()) == prompt.tokens
        logprobs, entropy = naive_loop.score_rows(model, alone, torch.ones_like(alone, dtype=torch.bool))
        ours = mask[row][attention[row]]
        torch.testing.assert_close(together[row, mask[row]], logprobs[0, ours], atol=1e-4, rtol=0)
        torch.testing.assert_close(entropies[row, mask[row]], entropy[0, ours], atol=1e-4, rtol=0)


@pytest.mark.parametrize("way", ["chunked", "trl_kernel"])
def test_all_ways_of_scoring_have_the_gradient_of_the_plain_one(way):
    if way == "trl_kernel":
        pytest.importorskip("trl")
    sizes = {"width": 32, "vocabulary": 300, "device": torch.device("cpu")}
    model, tokens = scoring_variants.workload(48, **sizes)
    found = {}
    for name in ("plain", way):
        model.zero_grad()
        loss = scoring_variants.accumulate_gradient(scoring_variants.WAYS[name], model, tokens)
        found[name] = (loss, {key: parameter.grad.clone() for key, parameter in model.named_parameters()})
    torch.testing.assert_close(found["plain"][0], found[way][0])
    torch.testing.assert_close(found["plain"][1], found[way][1], atol=1e-6, rtol=1e-4)


def test_spread_is_that_of_the_definition():
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    ordered = sorted(values)

    def interpolated(share):
        place = share * (len(ordered) - 1)
        low = int(place)
        return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])

    found = ratios.spread(values)
    expected = {"quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75}
    assert found == pytest.approx({k: interpolated(v) for k, v in expected.items()} | {"min": 1.0, "max": 9.0})
    assert set(ratios.spread([2.0]).values()) == {2.0}


def test_a_ratio_is_that_of_the_pairs_and_not_of_the_medians():
    above, below = ratios.Side("a", "s", (1.0, 8.0, 9.0)), ratios.Side("b", "s", (1.0, 2.0, 9.0))
    ratio = ratios.Ratio("a_over_b", above, below)
    assert ratio.values == [1.0, 4.0, 1.0]
    assert ratio.median == 1.0
    assert ratio.to_json()["numerator"]["each"] == [1.0, 8.0, 9.0]
    assert statistics.median(above.values) / statistics.median(below.values) == 4.0


def test_sides_take_turns_and_begin_in_turns():
    called = []
    first, second = ratios.interleave(3, [lambda: called.append("a") or 1.0, lambda: called.append("b") or 2.0])
    assert "".join(called) == "abbaab"
    assert (first, second) == ((1.0,) * 3, (2.0,) * 3)


def test_loops_run_only_in_their_own_turns():
    events = []

    def counting(name):
        def run(boundary):
            for number in range(100):
                events.append(f"{name}{number}")
                boundary({"number": number})

        return interleaving.Loop(run)

    with counting("a") as one, counting("b") as two:
        made = interleaving.interleave_steps([one, two], warm_up=1, pairs=2)
    assert events == ["a0", "b0", "b1", "a1", "a2", "b2"]
    assert [[step.parts["number"] for step in own] for own in made] == [[1, 2], [1, 2]]
    assert not one.thread.is_alive()


def test_a_loop_that_fails_or_ends_early_says_so():
    def failing(boundary):
        raise OSError("no room")

    with interleaving.Loop(failing) as loop, pytest.raises(OSError, match="no room"):
        loop.step()
    with interleaving.Loop(lambda boundary: boundary({})) as loop:
        loop.step()
        with pytest.raises(RuntimeError, match="ended before its last step"):
            loop.step()


def test_parts_of_steps_and_their_remainder_are_shares_of_the_steps():
    steps = [
        interleaving.Step(8.0, {"time/rollout": 4.0, "time/teacher/math": 1.0, "time/teacher/code": 1.0, "loss": 9.0}),
        interleaving.Step(4.0, {"time/rollout": 2.0, "time/update": 1.0}),
    ]
    found = {name: (part["share"], part["median"]) for name, part in training_steps.parts(steps).items()}
    nothing = {"student": (0.0, 0.0), "sync": (0.0, 0.0)}
    assert found == nothing | {
        "rollout": (0.5, 3.0), "teacher": (0.125, 1.0), "update": (0.125, 0.5), "other": (0.25, 1.5)
    }  # fmt: skip


def test_peak_memory_is_what_was_held_at_once():
    size = 64 * 2**20
    before = peak_memory.reset_peak()
    for _ in range(2):
        torch.ones(size // 4).sum()
    assert peak_memory.read_peak() - before == pytest.approx(size, rel=0.1)


def test_a_peak_is_measured_in_a_process_of_its_own():
    settings = Settings.quick(vocabulary=20000)
    logits = 4 * 2048 * settings.vocabulary
    assert peak_memory.peak("plain", 2048, settings) > 3 * logits


def test_our_own_run_tells_its_seconds_and_its_memory(tmp_path):
    found = dict(embedded_job.own_run(Settings.quick(pairs=1), tmp_path))
    assert {"rollout", "teacher", "student", "update"} <= found["seconds"].keys()
    assert all(part["each"][0] >= 0 for part in found["seconds"].values())
    assert found["memory"]["peak_bytes"] > found["memory"]["after_imports_bytes"] > 0


def test_a_peak_without_room_is_left_out_with_the_reason(monkeypatch):
    def killed(*_, **__):
        raise subprocess.CalledProcessError(-9, ["python", "chunked"], stderr="")

    monkeypatch.setattr(peak_memory, "peak", killed)
    left_out = peak_memory.attempt("a_over_b", "chunked", "plain", Settings.quick())
    assert "chunked exited with -9: killed" in left_out.reason


def test_the_plain_peak_is_extrapolated_where_there_is_no_room(monkeypatch):
    monkeypatch.setattr(peak_memory, "free_memory", lambda: 0)
    monkeypatch.setattr(peak_memory, "peak", lambda way, tokens, settings: 100 + 7 * tokens)
    found = peak_memory.peak_or_extrapolation("plain", Settings.quick(memory_tokens=800))
    assert found == (100 + 7 * 800, "extrapolated from 100 and 200 tokens")


def test_lengths_have_a_long_tail():
    lengths = workloads.long_tailed(4000, 50, seed=0)
    assert lengths == workloads.long_tailed(4000, 50, seed=0)
    assert statistics.median(lengths) == pytest.approx(50, rel=0.1)
    assert statistics.mean(lengths) == pytest.approx(50 * 2.718281828**0.5, rel=0.1)  # e^(sigma^2 / 2)
    assert min(lengths) >= 2
    assert max(lengths) <= workloads.TAIL * 50


def test_tokens_are_counted_at_the_input_of_the_models():
    counter = length_mix.InputTokens()
    tokens = torch.tensor([[5, 6, 7, 0], [5, 0, 0, 0]])
    counter.count(torch.nn.Identity(), (), {"input_ids": tokens})
    with torch.no_grad():
        counter.count(torch.nn.Identity(), (tokens[:1],), {})
    assert counter.counted == {"update": [8, 4], "scoring": [4, 3]}


def test_a_line_is_that_of_least_squares():
    xs, noise = [1.0, 2.0, 3.0, 4.0], [0.1, -0.1, -0.1, 0.1]
    found = scaling_laws.line(xs, [2 * x + 3 + e for x, e in zip(xs, noise, strict=True)])
    assert (found["slope"], found["intercept"]) == pytest.approx((2, 3))
    assert found["residuals"] == pytest.approx(noise)
    assert found["r_squared"] == pytest.approx(1 - 0.04 / (20 + 0.04))


def test_the_benchmarks_run_from_end_to_end(tmp_path, monkeypatch, capsys):
    out = tmp_path / "bench.json"
    monkeypatch.setattr(sys, "argv", ["bench.py", "--out", str(out), "--quick", "--only", *QUICK])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    bench.main()
    results = json.loads(out.read_text())
    for name, ratio in results["ratios"].items():
        pairs = zip(ratio["numerator"]["each"], ratio["denominator"]["each"], strict=True)
        assert ratio["each"] == [a / b for a, b in pairs], name
        assert ratio["min"] > 0
    assert {"naive_over_fireopd", "update_drop50_over_drop0", "score_4_teachers_over_1"} <= results["ratios"].keys()
    assert {"plugins_share_of_step", "generate_over_hfengine_8"} <= results["ratios"].keys()
    assert results["ratios"]["padded_over_real_tokens_update"]["min"] >= 1
    assert "prepare_smollm2" in results["left_out"]["generate_over_hfengine_smollm2"]
    split = results["ratios"]["naive_over_fireopd"]["details"]["parts_of_ours"]
    assert split.keys() == {*training_steps.PARTS, "other"}
    assert results["ratios"]["naive_over_fireopd"]["details"]["of_processor_seconds"]["min"] > 0
    assert results["machine"]["versions"]["torch"] == torch.__version__
    law = scaling_laws.law(
        "tokens", [(1, {"teacher": 1.0, "student": 1.0, "update": 2.0}), (2, dict.fromkeys(scaling_laws.COSTS, 3.0))]
    )
    other = tmp_path / "other.json"
    other.write_text(json.dumps(results | {"ratios": {}, "scaling": {"tokens": law}}))
    monkeypatch.setattr(sys, "argv", ["plot_bench.py", str(out), str(other), "--out", str(tmp_path)])
    plot_bench.main()
    assert "| `naive_over_fireopd` |" in capsys.readouterr().out
    assert (tmp_path / "performance.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "nope"], "unknown benchmark"),
        (["--pairs", "0"], "out of range"),
        (["--smollm2", "nowhere"], "contains no model"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--out", str(tmp_path / "bench.json"), *options])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_without_trl_its_ratios_are_left_out_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(trl_trainer, "version", lambda package: None)
    (left_out,) = training_steps.against_trl(Settings.quick(), tmp_path)
    assert "pip install -e '.[bench]'" in left_out.reason
