"""Versions, machine and revision of a run."""

import json
import subprocess
from importlib.metadata import version

from fireopd.analysis.provenance import environment, packages, revision, versions


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_revision_of_a_folder_and_whether_it_was_changed(tmp_path):
    assert revision(tmp_path) is None
    git(tmp_path, "init")
    assert revision(tmp_path) is None, "no commit yet"
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    first = revision(tmp_path)
    assert len(first["revision"]) == 40
    assert not first["changed"]
    (tmp_path / "b").write_text("a run's own output")
    assert not revision(tmp_path)["changed"]
    (tmp_path / "a").write_text("2")
    assert revision(tmp_path) == {"revision": first["revision"], "changed": True}


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(tmp_path) is None


def test_versions_are_those_that_are_installed(tmp_path):
    found = packages()
    assert found["torch"] == version("torch")
    assert found["math-verify"] == version("math-verify"), "a requirement with extras"
    assert f"torch {version('torch')}" in versions()
    assert json.loads(json.dumps(environment(tmp_path)))["packages"] == found
