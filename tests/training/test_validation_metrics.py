"""avg@k, pass@k, maj@k against definitions and combinatorics."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch

from fireopd.training.validation_metrics import AverageAtK, MajorityAtK, PassAtK, ValidationMetrics


def of(metric, rewards, votes=None, groups=None):
    rewards = torch.tensor(rewards, dtype=torch.float32)
    votes = torch.tensor(votes) if votes is not None else torch.zeros(len(rewards), dtype=torch.int64)
    groups = torch.tensor(groups) if groups is not None else torch.zeros(len(rewards), dtype=torch.int64)
    metric.update_groups(rewards, votes, groups)
    return metric.compute().item()


@pytest.mark.parametrize("right", range(7))
@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(right, k):
    rewards = [1.0] * right + [0.0] * (6 - right)
    subsets = list(combinations(rewards, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert of(PassAtK(k), rewards) == pytest.approx(expected, abs=1e-6)


def test_pass_at_k_needs_k_responses():
    with pytest.raises(ValueError, match="pass@4 needs at least 4 responses"):
        of(PassAtK(4), [1.0, 0.0])


def test_average_is_over_prompts():
    assert of(AverageAtK(), [1, 0, 1, 1], groups=[0, 0, 1, 1]) == pytest.approx(0.75)


def test_majority_takes_the_most_frequent_answer():
    assert of(MajorityAtK(), [0, 0, 1], votes=[4, 4, 7]) == 0
    assert of(MajorityAtK(), [1, 1, 0], votes=[4, 4, 7]) == 1
    assert of(MajorityAtK(), [1, 0], votes=[4, 7]) == 0.5, "a tie is broken by chance"
    assert of(MajorityAtK(), [1, 0, 0], votes=[4, -1, -1]) == 1, "no answer is no vote"
    assert of(MajorityAtK(), [0, 0], votes=[-1, -1]) == 0


def measured(tasks, groups, rewards, votes, finished):
    """Return a batch of graded rows, and what is measured of it."""
    batch = rollouts_of(scored_batch(4, 8))
    batch = replace(
        batch,
        prompts=tuple(replace(prompt, task=task) for prompt, task in zip(batch.prompts, tasks, strict=True)),
        groups=torch.tensor(groups),
        rewards=torch.tensor(rewards),
        votes=torch.tensor(votes),
        finished=torch.tensor(finished),
    )
    metrics = ValidationMetrics(["math", "code"])
    metrics.update(batch)
    return batch, metrics.compute()


def test_tasks_are_kept_apart():
    tasks, finished = ("math", "math", "code", "code"), [True, True, True, False]
    batch, values = measured(tasks, [0, 0, 1, 1], [1.0, 0.0, 0.0, 0.0], [0, 1, 1, 1], finished)
    assert values["math/avg_at_k"] == 0.5
    assert values["math/pass_at_k"] == 1
    assert values["code/avg_at_k"] == values["code/maj_at_k"] == 0
    assert values["code/finished"] == 0.5
    assert values["math/length"] == batch.response_mask[:2].sum() / 2


def test_a_task_without_any_reward_is_logged(monkeypatch):
    logged = []
    monkeypatch.setattr("fireopd.training.validation_metrics.rank_zero_info", logged.append)
    measured(("math", "math", "code", "code"), [0, 0, 1, 1], [1.0, 0.0, 0.0, 0.0], [0, 1, 1, 1], [True] * 4)
    (message,) = logged
    assert "all responses to the validation prompts of code have the reward 0" in message


def test_accuracy_of_finished_responses_and_its_absence_where_none_finished():
    tasks, finished = ("math", "math", "math", "code"), [True, True, False, False]
    _, values = measured(tasks, [0, 0, 0, 1], [1.0, 0.0, 1.0, 1.0], [0, 0, 0, 0], finished)
    assert values["math/accuracy_given_finish"] == 0.5
    assert "code/accuracy_given_finish" not in values
    assert values["code/avg_at_k"] == 1, "a right answer that is unfinished counts too"
