"""Table of method overlays and kinds of teachers: every pair trains two steps on the embedded models, or is refused.

fireopd serve tiny/math --teacher --port 8101 --kv_cache_gib 1 --eager
fireopd serve tiny/code --teacher --port 8102 --kv_cache_gib 1 --eager
python scripts/teacher_kinds.py --out table.md --kinds HFTeacher VLLMTeacher

Overlays that name teachers (self-distillation) keep their other settings. Without --kinds, the table has all kinds but
VLLMTeacher, which needs the servers.
"""

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from fireopd.cli.main import main as fireopd

FEW = ["--data.prompts.num_training=16", "--data.prompts.num_validation=0", "--data.batch_size=8"]
FEW += ["--data.engine.max_response_length=24", "--trainer.max_steps=2", "--trainer.callbacks=[]"]
SERVED, RECORDED = "VLLMTeacher", "RecordedRollouts"
PARTS = {name: {"class_path": "HFTeacher", "init_args": {"path": f"tiny/{name}"}} for name in ("math", "code")}


def teacher(name: str, **settings: object) -> dict[str, object]:
    """Return both teachers of the embedded tasks as one class."""
    own = {"class_path": name, "init_args": settings}
    return {"model": {"teachers": {"math": own, "code": own}}}


def kinds(folder: Path) -> dict[str, dict[str, object]]:
    """Return the settings of each kind, by the name of its column."""
    ports = {"math": 8101, "code": 8102}
    served = {n: {"path": f"tiny/{n}", "servers": [f"http://127.0.0.1:{p}"]} for n, p in ports.items()}
    return {
        "HFTeacher": {"model": {"teachers": PARTS}},
        "InitialStudentTeacher": teacher("InitialStudentTeacher"),
        "EMAStudentTeacher": teacher("EMAStudentTeacher"),
        "MixtureTeacher": teacher("MixtureTeacher", teachers=PARTS),
        SERVED: {"model": {"teachers": {n: {"class_path": SERVED, "init_args": own} for n, own in served.items()}}},
        RECORDED: {"model": {"teachers": {}}, "data": {"rollouts": {"files": [str(folder / "record")]}}},
    }


def record(folder: Path) -> None:
    """Write recorded rollouts with entropies and rewards, four responses to a prompt."""
    recorder = "{class_path: RolloutRecorder, init_args: {every_n_steps: 1}}"
    few = [option for option in FEW if "callbacks" not in option]
    signals = "--model.extra_signals=[student_entropy, teacher_entropy, rewards]"
    options = [f"--trainer.callbacks=[{recorder}]", "--data.responses_per_prompt=4", signals]
    run(["fit", "--config=configs/opd.yaml", *few, *options, f"--trainer.default_root_dir={folder / 'recorded'}"])
    (folder / "record").symlink_to(folder / "recorded" / "version_0" / "rollouts")


def run(arguments: Sequence[str]) -> str:
    """Run a command; return the setting that was refused, or nothing. Other errors propagate."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            fireopd(arguments)
        except SystemExit as stop:
            if stop.code not in (0, None):
                lines = [line for line in said.getvalue().splitlines() if line.startswith("fireopd: ")]
                if stop.code != 2 or not lines:
                    raise RuntimeError(said.getvalue()) from stop
                return lines[0].removeprefix("fireopd: ")
    return ""


def rows(folder: Path, chosen: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each overlay with the reason of the refusal by kind, empty if it trains."""
    for overlay in sorted(Path("configs/methods").glob("*.yaml")):
        found = {}
        for name in chosen:
            path = folder / "kind.yaml"
            path.write_text(yaml.safe_dump(kinds(folder)[name]))
            configs = ["--config=configs/opd.yaml", f"--config={overlay}", f"--config={path}"]
            root = f"--trainer.default_root_dir={folder / 'runs' / overlay.stem / name}"
            found[name] = run(["fit", *configs, *FEW, root])
            print(overlay.stem, name, found[name] or "trains", flush=True)
        yield overlay.stem, found


def write(out: Path, found: dict[str, dict[str, str]]) -> None:
    """Write the table: overlays with equal outcomes share a row."""
    names = list(next(iter(found.values())))
    groups: dict[tuple[bool, ...], list[str]] = {}
    for overlay, reasons in found.items():
        groups.setdefault(tuple(not reasons[name] for name in names), []).append(overlay)
    lines = [f"| overlays | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for outcome, overlays in sorted(groups.items(), reverse=True):
        cells = ["trains" if trains else "refused" for trains in outcome]
        lines.append(f"| {', '.join(f'`{name}`' for name in overlays)} | {' | '.join(cells)} |")
    out.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Train all pairs, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Markdown file")
    names = list(kinds(Path()))
    default = [name for name in names if name != SERVED]
    parser.add_argument("--kinds", nargs="+", choices=names, default=default, help="columns (default: %(default)s)")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if RECORDED in settings.kinds:
            record(Path(folder))
        write(settings.out, dict(rows(Path(folder), settings.kinds)))


if __name__ == "__main__":
    main()
