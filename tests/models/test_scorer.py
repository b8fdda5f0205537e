"""Chunked scoring: values and gradients against a reference."""

from types import SimpleNamespace

import pytest
import torch
from helpers.fakes import rollouts_of, scored_batch
from helpers.largest_tensor import LargestTensor
from helpers.models import CONFIGS, SIZES, make_model
from transformers import AutoModelForCausalLM, Gemma2Config, Qwen3Config

from fireopd.errors import UserError
from fireopd.models import output_head
from fireopd.models.scorer import CausalScorer, check_scorer, score_rollouts


def plain(model, tokens, mask, temperature):
    """Return the same from the full logits through probabilities."""
    probabilities = (model(input_ids=tokens).logits / temperature).softmax(-1)
    before = probabilities[:, :-1]
    logprobs = before.gather(-1, tokens[:, 1:, None]).squeeze(-1).log()
    entropy = -(before * before.log()).sum(-1)
    first = torch.zeros(len(tokens), 1, dtype=logprobs.dtype)
    return tuple(torch.cat([first, part], dim=1) * mask for part in (logprobs, entropy))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunked_scores_and_gradients_equal_the_reference(kind, chunk):
    batch, temperature = scored_batch(5, 11, seed=2), 0.7
    tokens, mask = batch.tokens, batch.response_mask
    assert int(mask.sum()) % 7 != 0, "the last chunk must be partial"
    generator = torch.Generator().manual_seed(3)
    upstream = [torch.randn(tokens.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    gradients = []
    for by_chunks in (True, False):
        model = make_model(kind, torch.float64)
        if by_chunks:
            scores = CausalScorer(model, chunk * 40)(tokens, mask, temperature=temperature, entropy=True)
            values = ours = (scores.logprobs, scores.entropy)
        else:
            values = expected = plain(model, tokens, mask, temperature)
        sum((u * v).sum() for u, v in zip(upstream, values, strict=True)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for value, reference in zip(ours, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-10, atol=1e-10)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradient, gradients[1][name], rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_float64_is_preserved():
    batch = scored_batch(3, 8)
    model = make_model("untied", torch.float64)
    scores = CausalScorer(model, 160)(batch.tokens, batch.response_mask)
    expected, _ = plain(model, batch.tokens, batch.response_mask, 1.0)
    torch.testing.assert_close(scores.logprobs, expected, rtol=1e-12, atol=1e-12)


def test_no_tensor_has_the_size_of_tokens_by_vocabulary():
    """Forward and backward pass with a vocabulary that is large compared with the hidden size."""
    batch = scored_batch(16, 20)
    config = Qwen3Config(vocab_size=900, head_dim=8, num_key_value_heads=1, tie_word_embeddings=True, **SIZES)
    model = AutoModelForCausalLM.from_config(config)
    largest_else = max(900 * 16, batch.tokens.numel() * 24)
    assert int(batch.response_mask.sum()) * 900 > 5 * largest_else
    for chunk in (900, 2 * largest_else):
        with LargestTensor() as largest:
            scores = CausalScorer(model, chunk)(batch.tokens, batch.response_mask, entropy=True)
            (scores.logprobs.sum() + scores.entropy.sum()).backward()
        assert largest.size <= max(chunk, largest_else)


def test_entropies_are_optional():
    batch = scored_batch()
    assert CausalScorer(make_model("tied"))(batch.tokens, batch.response_mask).entropy is None


def test_an_empty_mask_gives_differentiable_zeros():
    batch = scored_batch()
    scorer = CausalScorer(make_model("tied"))
    scores = scorer(batch.tokens, torch.zeros_like(batch.response_mask))
    scores.logprobs.sum().backward()
    assert scores.logprobs.abs().sum() == 0
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in scorer.parameters())


@pytest.mark.parametrize("budget", [1, 30, 10**6])
def test_micro_batches_preserve_the_row_order(budget):
    rollouts = rollouts_of(scored_batch(7, 12, seed=4))
    scorer = CausalScorer(make_model("tied"))
    scores = score_rollouts(scorer, rollouts, entropy=True, token_budget=budget)
    with torch.no_grad():
        full = scorer(rollouts.tokens, rollouts.response_mask, entropy=True)
    torch.testing.assert_close(scores.logprobs, full.logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.entropy, full.entropy, rtol=1e-5, atol=1e-5)


SOFT_CAPPED = {"vocab_size": 40, "head_dim": 8, "num_key_value_heads": 1, "final_logit_softcapping": 0.5, **SIZES}


def soft_capped(dtype=torch.float32):
    """Return a Gemma 2 whose logits reach the soft-cap."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Gemma2Config(**SOFT_CAPPED)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unknown_transformation_of_the_logits_is_rejected(monkeypatch, dtype):
    model = soft_capped(dtype)
    check_scorer("model.student", "gemma", CausalScorer(model))
    monkeypatch.setattr(output_head, "SOFT_CAPS", ())
    with pytest.raises(UserError, match=r"differ from the model's own logits by [1-9]\S* nats. Use a causal language"):
        check_scorer("model.student", "gemma", CausalScorer(model))


@pytest.mark.parametrize(
    ("head", "message"),
    [(None, "has no linear output layer"), (torch.nn.Linear(7, 40), "its forward pass .* ")],
)
def test_a_model_without_a_linear_output_layer_is_rejected(monkeypatch, head, message):
    model = make_model("untied")
    monkeypatch.setattr(model, "get_output_embeddings", lambda: head)
    if head is not None:
        monkeypatch.setattr(type(model.model), "forward", lambda *a, **k: SimpleNamespace(states=None))
    with pytest.raises(UserError, match=f"model.student: 'odd': .*{message}"):
        check_scorer("model.student", "odd", CausalScorer(model))


def test_a_model_with_nan_scores_is_rejected():
    model = make_model("tied")
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="nan nats"):
        check_scorer("model.student", "broken", CausalScorer(model))
