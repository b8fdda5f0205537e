"""`fireopd replay` against recorded results of the released loss."""

import json
import re
from dataclasses import replace

import pytest
import torch
from helpers.fakes import scored_batch
from helpers.golden import RECORDED, golden_batch
from safetensors.torch import load_file

from fireopd.algorithm import fire_loss, loss_fractions
from fireopd.cli.main import main
from fireopd.training.recordings import read_scored, write_scored
from fireopd.types import Sampling
from fireopd.types.targets import Targets


def replay(tmp_path, case, *more):
    now, batch = golden_batch(case)
    write_scored(tmp_path / "in.safetensors", batch)
    out = tmp_path / "out.safetensors"
    settings = {
        "trajectory_filter": "TeacherLikelihoodFilter",
        "trajectory_filter.drop_fraction": case["drop_fraction"],
        "token_weighter": "EntropyWeighter",
        "token_weighter.alpha": case["alpha"],
        "token_weighter.beta": case["beta"],
        "objective": "ReverseKL",
        "normalization": "batch",
    }
    options = [f"--{key}={value}" for key, value in settings.items()]
    main(["replay", str(tmp_path / "in.safetensors"), "--out", str(out), *options, *more])
    return now, read_scored(tmp_path / "in.safetensors"), load_file(out)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"seed{case['seed']}")
@pytest.mark.parametrize("answers", ["whole_batch", "micro_batch_of_one"])
def test_replay_reproduces_the_released_loss(tmp_path, capsys, case, answers):
    more = ["--population=micro_batch_of_one"] if answers == "micro_batch_of_one" else []
    now, batch, tensors = replay(tmp_path, case, *more)
    mask = tensors["mask"].bool()
    targets = Targets(tensors["keep"].bool(), mask, tensors["weight"], tensors["advantage"], mask.float())
    logprobs = now.clone().requires_grad_()
    shares = loss_fractions(mask, "token" if answers == "whole_batch" else "trajectory")
    loss = fire_loss(logprobs, batch.student_logprobs, targets, shares, case["clip_ratio"])
    loss.backward()
    assert loss.item() == pytest.approx(case[answers]["loss"], abs=1e-5)
    torch.testing.assert_close(logprobs.grad, torch.tensor(case[answers]["grad_student_logprobs"]), atol=1e-5, rtol=0)
    summary = json.loads(capsys.readouterr().out)
    assert summary["trajectories"] == len(case["teachers"])
    assert summary["targets"].endswith(".safetensors")
    assert summary["kept_trajectories"] == int(targets.keep.sum())
    assert summary["fire/keep_ratio"] == pytest.approx(targets.keep.float().mean().item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trajectory_filter=Nope"], "no TrajectoryFilter of that name is installed.*KeepAll"),
        (["--trajectory_filter={class_path: Nope, init_args: {size: 1}}"], "'Nope': no TrajectoryFilter of that name"),
        (["--trajectory_filter=KeepAl"], "Did you mean KeepAll?"),
        (
            ["--trajectory_filter=TeacherLikelihoodFilter", "--trajectory_filter.drop_fraction=2"],
            r"trajectory_filter.drop_fraction: .*\[0, 1\), got 2.0",
        ),
        (["--normalization=sometimes"], "normalization"),
        (["--nonsense=1"], "nonsense: no such setting"),
    ],
)
def test_bad_options_end_with_a_message_and_code_2(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        main(["replay", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_a_missing_file_and_a_missing_folder(tmp_path, capsys):
    for file, out, message in [
        ("nowhere", "out", "cannot be read as safetensors"),
        ("x", "no/out", "folder does not exist"),
        ("x", ".", "it is a folder. Name a file in it"),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(["replay", str(tmp_path / file), "--out", str(tmp_path / out)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_importance_weights_are_refused_where_the_file_says_that_tokens_were_cut_off(tmp_path, capsys):
    write_scored(tmp_path / "in", replace(scored_batch(), sampling=Sampling(top_p=0.9)))
    arguments = ["replay", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "--importance_cap: 5.0: the responses were sampled from a truncated distribution" in capsys.readouterr().err
    main([*arguments, "--importance_cap", "null"])
    assert (tmp_path / "out").exists()
