"""Table of method overlays."""

from shutil import copy

import pytest
from helpers.paths import CONFIGS

from fireopd.cli.main import main


def test_every_overlay_has_its_row(capsys, tmp_path):
    for name in ("opd", "tip", "kdrl"):
        copy(CONFIGS / "methods" / f"{name}.yaml", tmp_path)
    main(["methods", str(tmp_path)])
    rows = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert {"opd", "tip", "kdrl"} <= rows.keys()
    assert "2604.14084" in rows["tip"]
    assert "UncertainOrDivergentWeighter" in rows["tip"]
    assert "rewards, groups" in rows["kdrl"]
    assert "Uniform" not in rows["opd"]


def test_a_missing_folder_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["methods", str(tmp_path / "none")])
    assert stop.value.code == 2
    assert "no such folder" in capsys.readouterr().err
