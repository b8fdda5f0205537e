"""`fireopd view`: contents of the page, inert texts, and errors."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fakes import full_batch, scored_batch

from fireopd.analysis.page import Page
from fireopd.analysis.view import TrajectoryList, View, select_rows, trajectory_list
from fireopd.analysis.view.quantities import QUANTITIES, colour_range, token_values
from fireopd.analysis.view.trajectory_list import encode_float16
from fireopd.analysis.view.trajectory_view import split_evenly
from fireopd.cli.main import main
from fireopd.filters import AllOf, KeepAll, LengthFilter, TeacherLikelihoodFilter, VerdictFilter
from fireopd.method import Method
from fireopd.models.loading import load_tokenizer
from fireopd.training.recordings import write_scored
from fireopd.types import Sampling
from fireopd.weighters import EntropyWeighter

TOKENIZER = load_tokenizer("tiny/student", "model.student")
NASTY = '</script><script>alert(1)</script><!--<img src=x onerror="alert(2)">&amp;\u2028'


class Spelling:
    """Tokenizer whose tokens are whole texts."""

    def __init__(self, *texts):
        self.texts = texts

    def decode(self, tokens, **_):
        return "".join(self.texts[token % len(self.texts)] for token in tokens)


def view_of(batch, method=None):
    method = method or Method(TeacherLikelihoodFilter(0.5), EntropyWeighter())
    return View(batch, method.targets(batch), method.reasons(batch))


def page_of(view):
    return Page("t", {}, [TrajectoryList.of([view], TOKENIZER).section()])


def data_of(html):
    """Parse the data as a browser does: the element ends at the first end tag."""
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.S)[1])


def numbers(text):
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)


def test_the_page_holds_every_token_with_all_its_numbers():
    batch = replace(full_batch(), tasks=("sums",) * 8)
    view = view_of(batch)
    data = data_of(page_of(view).to_html())
    assert len(data["rows"]) == 8
    expected = {name for name in batch.signals if name != "rewards"} | {
        "weight",
        "advantage",
        "importance",
        "log_ratio",
    }
    assert {quantity["name"] for quantity in data["quantities"]} == expected
    by_score = sorted(range(8), key=lambda row: -view.scores[row].item())
    for shown, row in zip(data["rows"], by_score, strict=True):
        mask = batch.response_mask[row]
        text = "".join(data["texts"][place] for place in shown["tokens"])
        assert text == TOKENIZER.decode(batch.tokens[row][mask].tolist())
        assert (shown["teacher"], shown["task"], shown["kept"]) == (batch.teachers[row], "sums", view.targets.keep[row])
        assert shown["reward"] == batch.rewards[row]
        for name in batch.signals.keys() - {"rewards"}:
            np.testing.assert_allclose(numbers(shown["values"][name]), batch.signals[name][row][mask], rtol=1e-3)
        weight = numbers(shown["values"]["weight"])
        if shown["kept"]:
            np.testing.assert_allclose(weight, view.targets.weight[row][mask], rtol=1e-3)
        else:
            assert np.isnan(weight).all(), "what is dropped gets nothing"


def test_texts_in_a_page_are_inert():
    batch = replace(scored_batch(), teachers=(NASTY,) * 6, tasks=(NASTY,) * 6)
    html = Page(NASTY, {NASTY: NASTY}, [TrajectoryList.of([view_of(batch)], Spelling(NASTY)).section()]).to_html()
    assert html.count("<script") == html.count("</script") == 2, "ours"
    assert "<img" not in html
    assert "<!--" not in html
    data = data_of(html)
    assert data["texts"] == [NASTY]
    assert data["rows"][0]["teacher"] == data["rows"][0]["task"] == NASTY
    assert NASTY in data["rows"][0]["prompt"]


def test_a_page_refers_to_nothing_and_allows_no_script_but_its_own():
    html = page_of(view_of(scored_batch())).to_html()
    assert not re.search(r"https?:|//\w|\bsrc=|\bhref=|@import|url\(", html)
    script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    import hashlib

    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'" in html
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\son\w+=", html)


def test_a_page_of_five_hundred_by_five_hundred_is_of_reasonable_size(tmp_path):
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(500, 502, dtype=torch.bool)
    mask[:, :2] = False
    signals = {name: torch.rand(mask.shape, generator=generator) * mask for name in full_batch().signals}
    signals["rewards"] = torch.ones(500)
    names = ("math",) * 500
    batch = replace(
        scored_batch(),
        tokens=torch.randint(0, 40, mask.shape, generator=generator),
        response_mask=mask,
        groups=torch.arange(500),
        finished=torch.ones(500, dtype=torch.bool),
        teachers=names,
        signals=signals,
    )
    view = view_of(batch)
    assert len(select_rows(view)) == 500
    page_of(view).write(tmp_path / "p.html")
    assert (tmp_path / "p.html").stat().st_size < 12e6, "thirteen numbers a token"


def test_numbers_that_are_not_finite_or_too_large_survive():
    values = torch.tensor([0.0, -0.5, 1e6, -1e6, torch.inf, -torch.inf, torch.nan])
    np.testing.assert_array_equal(numbers(encode_float16(values)), [0, -0.5, 65504, -65504, np.inf, -np.inf, np.nan])
    batch = scored_batch()
    first = int(batch.response_mask[0].int().argmax())
    batch.signals["teacher_logprobs"][0, first] = -torch.inf
    shown = data_of(page_of(view_of(batch, Method())).to_html())["rows"][-1]
    assert shown["score"] is None
    assert numbers(shown["values"]["teacher_logprobs"])[0] == -np.inf


def test_the_scale_ends_where_all_but_the_most_extreme_lie():
    values = torch.arange(101.0)
    assert colour_range([values], 0.0) == 98
    assert colour_range([values[:50], values[50:]], 50.0) == 49
    assert colour_range([torch.tensor([2.0, torch.inf, torch.nan])], 0.0) == 2
    assert colour_range([torch.ones(4)], 1.0) == 1, "all equal"
    assert colour_range([torch.full((3,), torch.nan)], 0.0) == 1, "all dropped"


def test_every_signal_and_target_can_be_shown():
    batch = full_batch()
    assert list(token_values(batch, Method().targets(batch))) == [
        name for name in QUANTITIES if name not in ("coefficient", "teacher_wrote")
    ]


def test_what_the_student_has_not_read_has_no_numbers_of_its_own():
    batch = scored_batch(4, 9)
    read = torch.tensor([True, False, True, False])
    numbers = token_values(replace(batch, student_scored=read), Method().targets(batch))
    whole = token_values(batch, Method().targets(batch))
    for name in ("student_logprobs", "student_entropy", "log_ratio"):
        assert numbers[name][~read].isnan().all(), name
        shown = batch.response_mask & read[:, None]
        assert torch.equal(numbers[name][shown], whole[name][shown]), name
    assert torch.equal(numbers["teacher_logprobs"], whole["teacher_logprobs"])


@pytest.mark.parametrize(
    ("number", "sizes", "parts"),
    [
        (6, [8, 8], [3, 3]),
        (7, [8, 8], [3, 4]),
        (1, [8, 8, 8], [0, 0, 1]),
        (9, [10, 1, 10], [4, 1, 4]),
        (99, [8, 1], [8, 1]),
    ],
)
def test_a_number_is_spread_over_the_files_exactly(number, sizes, parts):
    assert split_evenly(number, sizes) == parts
    assert sum(parts) == min(number, sum(sizes))


def test_several_files_share_the_room_of_a_page(monkeypatch):
    view = view_of(scored_batch(rows=40))
    for most in (trajectory_list.MOST_TOKENS, int(20 * view.batch.lengths.float().mean())):
        monkeypatch.setattr(trajectory_list, "MOST_TOKENS", most)
        one, four = (TrajectoryList.of([view] * n, TOKENIZER) for n in (1, 4))
        assert len(one.rows) == min(40, len(select_rows(view, most_tokens=most)))
        assert len(four.rows) == 4 * len(select_rows(view, most_tokens=most // 4))
    assert 16 <= len(four.rows) <= 20, "as many as of one file, some less for the rounding"
    assert [len(TrajectoryList.of([view] * 3, TOKENIZER, n).rows) for n in (1, 7, 200)] == [1, 7, 120]


def test_rows_are_spread_over_the_scores():
    view = view_of(scored_batch(40, 12))
    ranks = view.scores.argsort(descending=True).tolist()
    assert select_rows(view, 3) == [ranks[0], ranks[20], ranks[39]]
    assert select_rows(view, 100) == ranks
    assert len(select_rows(view, None, most_tokens=int(10 * view.batch.lengths.float().mean()))) in (9, 10)
    assert len(select_rows(view, None, most_tokens=1)) == 1


@pytest.mark.parametrize(
    ("trajectory_filter", "words"),
    [
        (KeepAll(), ""),
        (LengthFilter(max_tokens=3, only_finished=True), r"\d tokens and cut, wanted 1 to 3"),
        (VerdictFilter(), r"reward [01], wanted above 0.5"),
        (
            AllOf([VerdictFilter("incorrect"), LengthFilter()]),
            r"reward [01], wanted at most 0.5; \d tokens, wanted 1 to any",
        ),
    ],
)
def test_filters_say_by_what_they_judge(trajectory_filter, words):
    batch = replace(full_batch(), finished=torch.zeros(8, dtype=torch.bool))
    reasons = Method(trajectory_filter).reasons(batch)
    assert len(reasons) == 8
    assert all(re.match(words, reason) for reason in reasons)
    assert bool(words) == all(reasons)


@pytest.mark.parametrize("population", ["rollout_batch", "micro_batch_of_one"])
@pytest.mark.parametrize("per_teacher", [True, False])
def test_the_threshold_that_is_said_is_the_one_that_decides(population, per_teacher):
    batch = scored_batch(12, 16)
    method = Method(TeacherLikelihoodFilter(0.4, per_teacher), population=population)
    keep = method.targets(batch).keep
    for kept, reason in zip(keep.tolist(), method.reasons(batch), strict=True):
        score, threshold = (float(number) for number in re.findall(r"-[\d.]+(?:e-\d+)?", reason))
        assert kept == (score >= threshold)
    assert keep.all() == (population == "micro_batch_of_one")


def test_an_empty_response_is_told_the_threshold_of_its_teacher_too():
    batch = scored_batch(6, 16)
    mask = batch.response_mask.clone()
    mask[0] = False
    method = Method(TeacherLikelihoodFilter(0.4, per_teacher=True))
    reasons = method.reasons(replace(batch, response_mask=mask))
    assert reasons[0].startswith("teacher's mean log-prob 0, ")
    assert reasons[0].split(", ")[1] == reasons[2].split(", ")[1]


def record(path, student="tiny/student", **changes):
    write_scored(path, replace(full_batch(), **changes), student)
    return str(path)


def test_the_command_writes_a_page_from_several_files_oldest_first(tmp_path, capsys):
    files = [record(tmp_path / "b", policy_version=9), record(tmp_path / "a", policy_version=2)]
    main(["view", *files, "--out", str(tmp_path / "p.html"), "--method", "configs/methods/fire.yaml", "--number", "6"])
    assert "6 trajectories" in capsys.readouterr().out
    html = (tmp_path / "p.html").read_text()
    assert [row["step"] for row in data_of(html)["rows"]] == [2, 2, 2, 9, 9, 9]
    assert "6 of 16, evenly spaced" in html
    assert "EntropyWeighter(alpha=1.0, beta=1.0)" in html


def test_options_say_the_method_too(tmp_path):
    options = ["--trajectory_filter=TeacherLikelihoodFilter", "--trajectory_filter.drop_fraction=0.5"]
    main(["view", record(tmp_path / "a"), "--out", str(tmp_path / "p.html"), *options])
    rows = data_of((tmp_path / "p.html").read_text())["rows"]
    assert [row["kept"] for row in rows] == [True] * 4 + [False] * 4
    assert "threshold" in rows[0]["reason"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"student": None},
            [],
            "it does not name the student of its rollouts. Name the model that sampled them: --tokenizer",
        ),
        ({}, ["--tokenizer=tiny/nope"], "--tokenizer: 'tiny/nope': no embedded model"),
        ({}, ["--number=0"], "--number: 0: not a number of trajectories"),
        ({}, ["--method=nowhere.yaml"], "--method: 'nowhere.yaml': cannot be read as YAML"),
        ({}, ["--method=configs/methods/opd.yaml", "--importance_cap=2"], "--importance_cap: '2.0': configs/methods"),
        ({"sampling": Sampling(top_p=0.5)}, [], "sampled from a truncated distribution"),
        ({"response_mask": torch.zeros(8, 12, dtype=torch.bool)}, [], "it holds no response token"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, capsys, changes, options, message):
    file = record(tmp_path / "a", **changes)
    with pytest.raises(SystemExit) as stop:
        main(["view", file, "--out", str(tmp_path / "p.html"), *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p.html").exists()


def test_files_of_several_students_need_a_tokenizer(tmp_path, capsys):
    files = [record(tmp_path / "a"), record(tmp_path / "b", student="tiny/small")]
    with pytest.raises(SystemExit):
        main(["view", *files, "--out", str(tmp_path / "p.html")])
    assert "several students: tiny/small, tiny/student" in capsys.readouterr().err
    main(["view", *files, "--out", str(tmp_path / "p.html"), "--tokenizer", "tiny/student"])
