"""Comparison of teacher and student distributions: values and gradients against full logits."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.models import make_model, teachers_of, wide_model

from fireopd.errors import UserError
from fireopd.models import EMBEDDED
from fireopd.models.distributions import DistributionComparison, TeacherDistributions, joint_signals
from fireopd.models.scorer import CausalScorer, score_rollouts
from fireopd.objectives import GeneralizedJSD, TopKDivergence
from fireopd.reductions import kl
from fireopd.teachers import HFTeacher, score_by_teachers
from fireopd.teachers.huggingface import MISSING_TOKEN_LOGPROB
from fireopd.training.stopwatch import Stopwatch
from fireopd.types.signals import JOINT

CPU = torch.device("cpu")


def full_log_distributions(model, rollouts, temperature):
    """Return float [B, L, V], the log-distribution at each token from the full logits."""
    logits = model(input_ids=rollouts.tokens).logits[:, :-1] / temperature
    first = torch.zeros_like(logits[:, :1])
    return torch.cat([first, logits], 1).log_softmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunked_comparisons_and_gradients_equal_the_reference(chunk, temperature):
    names = ["narrow", "wide", "wide", "narrow", "wide", "narrow"]
    batch = scored_batch(6, 11, seed=2, teachers=names)
    rollouts = replace(rollouts_of(batch), sampling=replace(batch.sampling, temperature=temperature))
    mask = rollouts.response_mask
    sizes = [int(mask[[own == name for own in names]].sum()) for name in ("narrow", "wide")]
    assert all(size % 7 for size in sizes), "the last chunks must be partial"
    models = {"narrow": make_model("untied"), "wide": wide_model()}
    with torch.no_grad():
        models["narrow"].lm_head.weight.mul_(1.5)
    upstream = torch.randn(mask.shape, generator=torch.Generator().manual_seed(3))
    objective, gradients = GeneralizedJSD(0.3), []
    for by_chunks in (True, False):
        student = make_model("tied")
        if by_chunks:
            teachers = teachers_of(models, chunk)
            _, known = score_by_teachers(teachers, rollouts, Stopwatch(), entropy=False, distributions=True)
            comparison = DistributionComparison(known, lambda s, t, _: {"divergence": objective.divergence(s, t)})
            scorer = CausalScorer(student, chunk * 40)
            scores = scorer(rollouts.tokens, mask, temperature=temperature, comparison=comparison)
            value = ours = scores.comparisons["divergence"]
        else:
            own = full_log_distributions(student, rollouts, temperature)
            theirs = {name: full_log_distributions(model, rollouts, temperature) for name, model in models.items()}
            other = torch.stack([theirs[name][row] for row, name in enumerate(names)])
            value = expected = objective.divergence(own.flatten(0, 1), other.flatten(0, 1)).view(mask.shape) * mask
        (upstream * value).sum().backward()
        gradients.append({name: p.grad for name, p in student.named_parameters()})
    assert expected.max() > 0.01
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradient, gradients[1][name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert all(p.grad is None for model in models.values() for p in model.parameters())


@pytest.mark.parametrize("budget", [1, 30, 10**6])
def test_joint_signals_equal_a_naive_reference(budget):
    names = ["narrow", "wide"] * 3
    rollouts = rollouts_of(scored_batch(6, 11, seed=5, teachers=names))
    models, student = {"narrow": make_model("untied"), "wide": wide_model()}, make_model("tied")
    scores, known = score_by_teachers(teachers_of(models, 7), rollouts, Stopwatch(), entropy=True, distributions=True)
    plain, nothing = score_by_teachers(teachers_of(models, 7), rollouts, Stopwatch(), entropy=True, distributions=False)
    assert nothing is None
    assert torch.equal(scores.logprobs, plain.logprobs)
    assert torch.equal(scores.entropy, plain.entropy)
    comparison = DistributionComparison(known, joint_signals(JOINT, 5))
    found = score_rollouts(
        CausalScorer(student, 280), rollouts, entropy=False, token_budget=budget, comparison=comparison
    )
    assert found.comparisons.keys() == JOINT
    with torch.no_grad():
        own = full_log_distributions(student, rollouts, 1.0).double().exp().tolist()
        others = {
            name: full_log_distributions(model, rollouts, 1.0).double().exp().tolist() for name, model in models.items()
        }
    for row, name in enumerate(names):
        for place in range(rollouts.tokens.shape[1]):
            signals = {signal: values[row, place].item() for signal, values in found.comparisons.items()}
            if not rollouts.response_mask[row, place]:
                assert set(signals.values()) == {0.0}
                continue
            p, q = own[row][place], others[name][row][place]
            tops = [set(sorted(range(40), key=lambda v, x=x: -x[v])[:5]) for x in (p, q)]
            exact = sum(a * torch.tensor(a / b).log().item() for a, b in zip(p, q, strict=True))
            assert signals["reverse_kl"] == pytest.approx(exact, abs=1e-5)
            a, b = ([x[v] / sum(x[u] for u in tops[0]) for v in tops[0]] for x in (p, q))
            on_top = sum(s * math.log(s / t) for s, t in zip(a, b, strict=True))
            assert signals["topk_reverse_kl"] == pytest.approx(on_top, abs=1e-5)
            a, b = ({v: x[v] / sum(x[u] for u in top) for v in top} for x, top in zip((p, q), tops, strict=True))
            forward = sum(t * math.log(t / a.get(v, 1e-12)) for v, t in b.items())
            assert signals["topk_forward_kl"] == pytest.approx(forward, abs=1e-4)
            assert signals["topk_overlap"] == pytest.approx(len(tops[0] & tops[1]) / 5)
            assert signals["student_topk_mass"] == pytest.approx(sum(q[v] for v in tops[0]), abs=1e-5)
            proposed = max(range(40), key=lambda v, p=p: p[v])
            assert signals["teacher_rank"] == 1 + sum(mass > q[proposed] for mass in q)


def test_only_declared_signals_are_computed():
    student, teacher = torch.randn(2, 3, 9).log_softmax(-1)
    tokens = torch.zeros(3, dtype=torch.int64)
    assert joint_signals(frozenset({"topk_overlap"}), 4)(student, teacher, tokens).keys() == {"topk_overlap"}
    full = joint_signals(JOINT, 99)(student, teacher, tokens)
    assert full["topk_overlap"].tolist() == [1.0] * 3
    torch.testing.assert_close(full["student_topk_mass"], torch.ones(3))
    torch.testing.assert_close(full["topk_reverse_kl"], full["reverse_kl"])


def test_a_student_has_no_divergence_from_itself():
    rollouts = rollouts_of(scored_batch(4, 11, teachers=["one"] * 4))
    model = make_model("tied")
    _, known = score_by_teachers(
        teachers_of({"one": model}, 5), rollouts, Stopwatch(), entropy=False, distributions=True
    )
    comparison = DistributionComparison(known, joint_signals(JOINT, 5))
    found = score_rollouts(
        CausalScorer(model, 120), rollouts, entropy=False, token_budget=99, comparison=comparison
    ).comparisons
    assert found["reverse_kl"].abs().max() < 1e-5
    assert (found["topk_overlap"][rollouts.response_mask] == 1).all()


def test_no_tensor_has_the_size_of_tokens_by_vocabulary():
    """Tensors saved by autograd are no larger than a chunk of logits or the hidden states."""
    rollouts = rollouts_of(scored_batch(16, 20, teachers=["one"] * 16))
    _, known = score_by_teachers(
        teachers_of({"one": make_model("untied")}, 4), rollouts, Stopwatch(), entropy=False, distributions=True
    )
    assert sum(states.numel() for states in known.hidden_states) == int(rollouts.response_mask.sum()) * 16
    objective, sizes = TopKDivergence(4, mass="tail"), []
    comparison = DistributionComparison(known, lambda s, t, _: {"divergence": objective.divergence(s, t)})
    scorer = CausalScorer(make_model("tied"), chunk_logits=160)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        scores = scorer(rollouts.tokens, rollouts.response_mask, comparison=comparison)
        (scores.comparisons["divergence"].sum() + scores.logprobs.sum()).backward()
    assert int(rollouts.response_mask.sum()) > 40
    assert max(sizes) <= max(4 * 41, rollouts.tokens.numel() * 24)


def test_hidden_states_do_not_depend_on_the_position_of_the_response(tiny_prompts):
    """A teacher with a context scores the same response tokens."""
    from fireopd.engines.rollout import collate
    from fireopd.types import Response

    prompts = [prompt for prompt in tiny_prompts if prompt.teacher == "math"][:3]
    responses = [
        Response((5, 6, 7, 1), (-1.0,) * 4, True),
        Response((8, 1), (-1.0,) * 2, True),
        Response((9,), (-1.0,), True),
    ]
    rollouts = collate(prompts, responses, range(3), scored_batch().sampling, 0)
    known = []
    for context in ([], [{"role": "user", "content": "7;+5"}, {"role": "assistant", "content": "7+5=12;#12"}]):
        teacher = HFTeacher("tiny/math", context=context)
        teacher.setup("model.teachers.math", CPU)
        scores, distributions = teacher.score_with_distributions(rollouts, entropy=False)
        known.append(distributions)
        assert [len(states) for states in distributions.hidden_states] == [4, 2, 1]
        for row, states in enumerate(distributions.hidden_states):
            logprobs = distributions.heads[row](states).log_softmax(-1)
            target_ids = rollouts.tokens[row][rollouts.response_mask[row]]
            expected = scores.logprobs[row][rollouts.response_mask[row]]
            torch.testing.assert_close(logprobs.gather(-1, target_ids[:, None]).squeeze(-1), expected)
    assert (known[0].hidden_states[0] - known[1].hidden_states[0]).abs().max() > 0.01


@pytest.mark.parametrize("size", [33, 48])
def test_heads_of_different_sizes_are_compared_on_common_tokens(size):
    """Values and gradients equal those of logits that are masked by minus infinity."""
    rollouts = rollouts_of(scored_batch(5, 11, seed=2, teachers=["one"] * 5))
    rollouts = replace(rollouts, tokens=rollouts.tokens.clamp(max=32))
    student, teacher = make_model("tied"), make_model("untied", vocab_size=size)
    teachers = teachers_of({"one": teacher}, 7)
    scores, known = score_by_teachers(teachers, rollouts, Stopwatch(), entropy=True, distributions=True)
    objective, mask = GeneralizedJSD(0.3), rollouts.response_mask
    comparison = DistributionComparison(known, lambda s, t, _: {"divergence": objective.divergence(s, t)})
    ours = CausalScorer(student, 7 * 40)(rollouts.tokens, mask, entropy=True, comparison=comparison)
    ours.comparisons["divergence"].sum().backward()
    gradients = [p.grad.clone() for p in student.parameters()]
    student.zero_grad()
    common = min(size, 40)
    own, other = (
        torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :-1]], 1)[..., :common].log_softmax(-1)
        for logits in (student(rollouts.tokens).logits, teacher(rollouts.tokens).logits)
    )
    expected = objective.divergence(own.flatten(0, 1), other.flatten(0, 1)).view(mask.shape) * mask
    expected.sum().backward()
    torch.testing.assert_close(ours.comparisons["divergence"], expected, rtol=1e-5, atol=1e-6)
    for one, p in zip(gradients, student.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad, rtol=1e-4, atol=1e-6)
    for name, model, values in (("student", student, ours), ("teacher", teacher, scores)):
        full = full_log_distributions(model, rollouts, 1.0).gather(-1, rollouts.tokens[:, :, None]).squeeze(-1)
        torch.testing.assert_close(values.logprobs, full * mask, rtol=1e-5, atol=1e-5, msg=name)


def test_a_padding_of_the_student_has_a_small_probability_under_a_smaller_teacher():
    batch = scored_batch(3, 9, seed=1, teachers=["one"] * 3)
    row, place = batch.response_mask.nonzero()[1].tolist()
    tokens = batch.tokens.clamp(max=34)
    tokens[row, place] = 39
    rollouts = replace(rollouts_of(batch), tokens=tokens)
    teacher = teachers_of({"one": make_model("untied", vocab_size=35)}, 7)["one"]
    scores = teacher.score(rollouts, entropy=True)
    assert scores.logprobs[row, place] == MISSING_TOKEN_LOGPROB
    shown = replace(rollouts, tokens=tokens.clamp(max=34))
    others = batch.response_mask.clone()
    others[row, place] = False
    assert torch.equal(scores.logprobs[others], teacher.score(shown, entropy=True).logprobs[others])


def test_a_smaller_teacher_must_have_the_tokens_of_its_tokenizer(tmp_path, tiny_prompts):
    own = [prompt for prompt in tiny_prompts if prompt.teacher == "math"][:1]
    settings = ("model.teachers.x", "tiny/student", own, 8)
    for rows, refused in ((64, False), (40, True)):
        shutil.copytree(EMBEDDED / "math", tmp_path / str(rows))
        path = tmp_path / str(rows) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": rows}))
        teacher = HFTeacher(str(tmp_path / str(rows)))
        teacher.check_distributions("model.teachers.x", "tiny/student")
        if refused:
            with pytest.raises(UserError, match="has 40 tokens and the student's 48, but its tokenizer"):
                teacher.check(*settings)
        else:
            teacher.check(*settings)


def test_kl_of_log_distributions():
    p, q = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert kl(p, q).item() == pytest.approx(0.5 * torch.tensor(2.0).log().item())
    assert kl(q, p).item() == torch.inf


def test_rows_are_selected_with_their_heads():
    heads = tuple(object() for _ in range(3))
    known = TeacherDistributions(tuple(torch.full((2, 2), float(row)) for row in range(3)), heads)
    some = known.select(torch.tensor([2, 0]))
    assert some.heads == (heads[2], heads[0])
    assert [states[0, 0].item() for states in some.hidden_states] == [2.0, 0.0]
