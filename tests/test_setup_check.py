"""The set-up check: every fault it knows is made on purpose, and its line must name cause and mend."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from peftlab.course import setup_check
from peftlab.course.setup_check import CARE, FAILS, OK, Line, Report
from peftlab.tasks import models
from peftlab.tasks.datasets import data_folder

ROOT = Path(__file__).resolve().parents[1]


def says(found: tuple[str, ...], state: str, *words: str) -> None:
    """The line has this state, holds these words, and a failing one has a mend."""
    line = Line("it", *found)
    assert line.state == state, line
    missing = [word for word in words if word not in f"{line.says} {line.mend}"]
    assert not missing, f"{line} does not say {missing}"
    assert line.mend or state != FAILS


# ---- this Python --------------------------------------------------------------------------------------------------


def test_the_python_version():
    says(setup_check.python_version((3, 11, 0)), OK, "3.11.0")
    says(setup_check.python_version((3, 10, 4)), FAILS, "3.10.4", "3.11 to 3.14", "make lab PYTHON=")
    says(setup_check.python_version((3, 15, 0)), FAILS, "3.15.0")


def test_its_limits_are_those_of_set_up():
    text = (ROOT / "tools" / "setup_env.py").read_text(encoding="utf-8")
    limits = f"OLDEST_PYTHON, NEWEST_PYTHON = {setup_check.OLDEST_PYTHON}, {setup_check.NEWEST_PYTHON}"
    assert limits in text
    assert f'STAMP = "{setup_check.STAMP}"' in text


def test_another_python_than_the_one_that_set_up_made(tmp_path):
    mine, course = tmp_path / "mine", tmp_path / "course"
    (course / ".venv").mkdir(parents=True)
    mine.mkdir()
    says(setup_check.environment(course, mine), OK, "your own")
    (course / ".venv" / setup_check.STAMP).write_text("{}")
    says(setup_check.environment(course, mine), FAILS, str(mine), "make lab", str(course / ".venv"))
    says(setup_check.environment(course, course / ".venv"), OK, "set-up made")


def pyproject(folder: Path, *needs: str) -> Path:
    path = folder / "pyproject.toml"
    listed = json.dumps(list(needs))
    path.write_text(f"[project]\ndependencies = {listed}\n[project.optional-dependencies]\nlab = []\n")
    return path


def test_the_packages_of_this_environment_fit():
    says(setup_check.packages(), OK)


def test_a_package_that_is_missing_or_does_not_fit(tmp_path):
    installed = {"torch": "2.13.0+cpu", "peft": "0.18.1"}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    needs = ("torch>=2.6,<2.14", "peft>=0.21.2,<0.22", "gguf>=0.19", 'nowhere>=1; sys_platform == "none"')
    says(
        setup_check.packages(pyproject(tmp_path, *needs), version),
        FAILS, "peft is 0.18.1", ">=0.21.2", "gguf is missing", "make lab", "setup_env.py",
    )  # fmt: skip
    assert "torch" not in setup_check.packages(pyproject(tmp_path, *needs), version)[1]
    assert "nowhere" not in setup_check.packages(pyproject(tmp_path, *needs), version)[1]


# ---- this machine -------------------------------------------------------------------------------------------------


def test_torch_computes_here():
    says(setup_check.torch_computes(), OK, "torch")


def test_a_torch_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # import torch -> ImportError
    says(setup_check.torch_computes(), FAILS, "cannot be imported", "make lab")


def test_a_torch_that_computes_nonsense(monkeypatch):
    import torch

    wrong = types.SimpleNamespace(tensor=lambda *_, **__: torch.ones(2, 2, requires_grad=True), __version__="9.9")
    monkeypatch.setitem(sys.modules, "torch", wrong)
    says(setup_check.torch_computes(), FAILS, "wrong results", "9.9")


def test_cores_and_threads():
    says(setup_check.threads(cores=4, used=4), OK, "4 cores")
    says(setup_check.threads(cores=2, used=8), CARE, "8 threads on 2 cores", "OMP_NUM_THREADS")
    says(setup_check.threads(cores=1, used=1), CARE, "1 core")
    says(setup_check.threads(cores=8, used=1), CARE, "1 of 8", "OMP_NUM_THREADS")


def test_memory():
    says(setup_check.memory(16.0), OK, "16 GB")
    says(setup_check.memory(3.0), CARE, "3.0 GB")
    says(setup_check.memory(0.6), FAILS, "0.6 GB", "Shut Down All Kernels")


def test_memory_that_cannot_be_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    says(setup_check.memory(), CARE, "4 GB")


def test_disk(monkeypatch):
    says(setup_check.disk(12.0), OK, "12 GB")
    says(setup_check.disk(0.2), FAILS, "0.2 GB", "PEFTLAB_CACHE")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(total=0, free=0))
    says(setup_check.disk(), CARE, "does not say")


def test_the_disk_of_a_cache_that_does_not_exist_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "not" / "yet"))
    asked = []

    def usage(path):
        asked.append(Path(path))
        return types.SimpleNamespace(total=10**12, free=0.3 * 10**9 if Path(path) == tmp_path else 10**12)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    says(setup_check.disk(), FAILS, "0.3 GB")
    assert tmp_path in asked


# ---- models -------------------------------------------------------------------------------------------------------


def write_safetensors(path: Path, missing: int = 0) -> None:
    """A file with one tensor of 8 bytes, `missing` of them cut off."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * (8 - missing))


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No model on this machine: no package, an empty cache, no variables."""
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "cache"))
    for known in models.KNOWN.values():
        monkeypatch.delenv(known.variable, raising=False)
    monkeypatch.setattr(models, "_in_package", lambda known: None)
    return tmp_path


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_a_model_that_is_not_there(nowhere, name):
    says(setup_check.model(name), FAILS, "not on this machine", "setup_env.py", models.KNOWN[name].requirement)


def test_a_variable_that_names_a_wrong_folder(nowhere, monkeypatch):
    monkeypatch.setenv("PEFTLAB_MINILM", str(nowhere / "gone"))
    says(setup_check.model("minilm"), FAILS, "PEFTLAB_MINILM", "gone", "unset")


def test_a_converted_model_whole_and_cut_short(nowhere):
    folder = models.cache_root() / models.SMOLLM2_FOLDER
    folder.mkdir(parents=True)
    (folder / models.COMPLETE).write_text(json.dumps({"source_sha256": models.SMOLLM2_SHA256}))
    (folder / "config.json").write_text("{}")
    if models.find_local(models.SMOLLM2) is None:
        pytest.fail("the stand-in no longer looks complete to peftlab.tasks.models")
    says(setup_check.model("smollm2"), FAILS, "holds no weights", "delete the folder", "prepare")
    write_safetensors(folder / "model.safetensors", missing=3)
    says(setup_check.model("smollm2"), FAILS, "cut short", "delete the folder", str(folder), "prepare")
    write_safetensors(folder / "model.safetensors")
    says(setup_check.model("smollm2"), OK, "cache")


def test_smollm2_before_its_conversion(nowhere, monkeypatch):
    gguf = nowhere / "model.gguf"
    gguf.write_bytes(b"GGUF")
    monkeypatch.setattr(models, "_in_package", lambda known: gguf)
    says(setup_check.model("smollm2"), CARE, "converted the first time")
    assert not models.cache_root().exists(), "the check converted or wrote something"


def test_a_packaged_model_cut_short(nowhere, monkeypatch):
    write_safetensors(nowhere / "model.safetensors", missing=1)
    monkeypatch.setattr(models, "_in_package", lambda known: nowhere)
    says(setup_check.model("minilm"), FAILS, "cut short", "--force-reinstall", models.MINILM.requirement)


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"{x"])
def test_what_is_no_safetensors_file_is_not_whole(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert not setup_check.safetensors_is_whole(path)


# ---- data, folders, widgets ---------------------------------------------------------------------------------------


@pytest.fixture
def data(monkeypatch, tmp_path):
    """A copy of the data folder that may be damaged."""
    folder = tmp_path / "data"
    shutil.copytree(data_folder(), folder, ignore=shutil.ignore_patterns("models", "build", "adapters"))
    monkeypatch.setenv("PEFTLAB_DATA", str(folder))
    return folder


def test_whole_data(data):
    says(setup_check.data_files(), OK, "whole")


def test_damaged_and_missing_data(data):
    file = data / "wordnet_topics.csv"
    file.write_bytes(file.read_bytes() + b"train,food,x,changed\n")
    says(setup_check.data_files(), FAILS, "wordnet_topics.csv was changed", "git checkout")
    file.unlink()
    says(setup_check.data_files(), FAILS, "wordnet_topics.csv is missing", "git checkout")


def test_a_result_that_was_cut_short(data):
    path = data / "results" / "scissors.json"
    path.write_bytes(path.read_bytes()[:1000])
    says(setup_check.data_files(), FAILS, "results/scissors.json cannot be read")


def test_a_wrong_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PEFTLAB_DATA", str(tmp_path / "gone"))
    says(setup_check.data_files(), FAILS, "PEFTLAB_DATA", "gone")


def test_the_learners_copy(tmp_path):
    for name in ("notebooks", "work", "elsewhere"):
        (tmp_path / name).mkdir()
    says(setup_check.work_folder(tmp_path / "notebooks", tmp_path), FAILS, "notebooks/", "work/")
    says(setup_check.work_folder(tmp_path / "work", tmp_path), OK, "your own copy")
    says(setup_check.work_folder(tmp_path / "elsewhere", tmp_path), OK)


def extension(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "package.json").write_text("{}")


def test_widgets(tmp_path):
    folder, here = tmp_path / "a", Path(sys.executable)
    extension(folder, "anywidget")
    says(setup_check.widgets([folder], here), FAILS, "ipywidgets", "make lab")
    extension(folder, "@jupyter-widgets/jupyterlab-manager")
    says(setup_check.widgets([folder], here), OK)
    says(setup_check.widgets([], here), FAILS, "ipywidgets and anywidget")


def test_a_jupyterlab_of_another_python(tmp_path):
    ours, other = tmp_path / "ours", tmp_path / "other" / "bin" / "python3"
    for name in ("anywidget", "@jupyter-widgets/jupyterlab-manager"):
        extension(ours, name)
    says(setup_check.widgets([ours], other), FAILS, "another Python", str(other), "make lab")
    for name in ("anywidget", "@jupyter-widgets/jupyterlab-manager"):
        extension(tmp_path / "other" / "share" / "jupyter" / "labextensions", name)
    says(setup_check.widgets([ours], other), OK)


def test_asking_for_the_server(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert setup_check.server_python() is None
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
    import psutil

    for command, found in (
        ([sys.executable, "-m", "jupyterlab"], Path(sys.executable)),
        (["/usr/bin/code"], None),
        (["python"], None),
        ([], None),
    ):
        monkeypatch.setattr(psutil.Process, "cmdline", lambda self, command=command: command)
        assert setup_check.server_python() == found
    monkeypatch.setenv("JPY_PARENT_PID", "999999999")
    monkeypatch.undo()
    monkeypatch.setenv("JPY_PARENT_PID", "999999999")  # no such process
    assert setup_check.server_python() is None


# ---- the report ---------------------------------------------------------------------------------------------------


def test_a_check_that_stops_is_a_line_and_not_an_error(monkeypatch):
    def stops():
        raise RuntimeError("the disk is on fire\nand more")

    monkeypatch.setattr(setup_check, "CHECKS", {"fire": stops, "after it": lambda: (OK, "fine")})
    found = setup_check.report()
    assert [line.state for line in found.lines] == [FAILS, OK]
    assert "RuntimeError: the disk is on fire" in found.lines[0].says and found.lines[0].mend
    assert not found.ok and "fire" in found.summary()


def test_every_check_survives_a_broken_machine(monkeypatch):
    """Nothing can be imported late, no file opened: still a report with one line each."""
    for name in ("torch", "psutil", "jupyter_core", "jupyter_core.paths", "packaging", "packaging.requirements"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError("no disk")))
    found = setup_check.report()
    assert [line.what for line in found.lines] == list(setup_check.CHECKS)
    assert {"packages", "torch", "data", "widgets"} <= {line.what for line in found.lines if line.state == FAILS}
    assert all(line.mend for line in found.lines if line.state == FAILS)


EXAMPLE = Report([Line("A", OK, "good"), Line("B", FAILS, "the <b> & `x` is broken", "run `make lab`")])


def test_the_report_as_plain_text():
    text = repr(EXAMPLE)
    assert "ok" in text and "mend this" in text and "→ run `make lab`" in text
    assert "Before you go on, mend: B." in text and "\x1b" not in text


def test_the_report_as_html():
    page = EXAMPLE._repr_html_()
    assert "mend this" in page and "✓ ok" in page  # words, not colour alone
    assert "the &lt;b&gt; &amp; <code>x</code> is broken" in page and "<code>make lab</code>" in page


def test_in_a_terminal():
    """Its exit code says whether anything fails, and a report of a sound machine names no folder of it."""
    ran = subprocess.run(
        [sys.executable, "-m", "peftlab.course.setup_check"], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.stderr == ""
    assert len([line for line in ran.stdout.splitlines() if line.startswith("[")]) == len(setup_check.CHECKS)
    assert ran.returncode == ("mend this" in ran.stdout)
    if ran.returncode == 0:
        assert str(Path.home()) not in ran.stdout and sys.prefix not in ran.stdout


def test_importing_it_needs_nothing_that_set_up_installs():
    heavy = ("torch", "transformers", "packaging", "psutil", "IPython")
    code = f"import sys; import peftlab.course.setup_check; print([n for n in {heavy!r} if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
