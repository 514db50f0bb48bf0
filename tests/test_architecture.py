"""Who may import whom, read from the source. And what an import, or a file, may never do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import peftlab

PACKAGE = Path(peftlab.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
METHODS = [name for name in FILES if name.startswith("methods/")]
CORE = ["__init__.py", "api.py", "checkpoint.py", "errors.py", "hosts.py", "runtime.py", "surgery.py", "targeting.py"]


def imports(name: str, *, only_at_the_top: bool = False) -> set[str]:
    """Full names of the modules that a file imports: `from a.b import c` counts as a.b and as a.b.c."""
    found = set()
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    for node in tree.body if only_at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: write imports in full"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def ours(names: set[str]) -> set[str]:
    """The parts of peftlab among these names: 'surgery', 'methods', …"""
    return {name.split(".")[1] for name in names if name.startswith("peftlab.")}


@pytest.mark.parametrize("name", METHODS)
def test_methods_know_torch_and_the_core_only(name):
    found = imports(name)
    allowed = {"torch", "peftlab", *sys.stdlib_module_names}
    if name == "methods/additive/prompt_tuning.py":
        allowed.add("transformers")  # a prompt that starts from a text asks for the tokenizer
    assert packages(found) <= allowed
    allowed = {"surgery", "hosts", "targeting", "errors", "runtime", "methods"}
    if name == "methods/additive/multitask_prompt_tuning.py":
        allowed.add("checkpoint")  # it can start from the file of another adapter
    assert {part for part in ours(found) if (PACKAGE / part).is_dir() or f"{part}.py" in FILES} <= allowed


@pytest.mark.parametrize("name", CORE)
def test_the_core_knows_nothing_above_it(name):
    found = imports(name)
    assert packages(found) <= {"torch", "safetensors", "transformers", "peftlab", *sys.stdlib_module_names}
    above = {"tasks", "course", "show", "bench", "parity", "doctor", "costs", "quant", "search"}
    assert not ours(found) & above


def test_only_one_core_file_knows_transformers():
    knowing = {name for name in CORE if "transformers" in packages(imports(name))}
    assert knowing <= {"hosts.py"}
    assert "transformers" not in packages(imports("hosts.py", only_at_the_top=True))  # and it imports it late


@pytest.mark.parametrize("name", [n for n in FILES if n.split("/")[0] in ("quant", "costs", "tasks", "search")])
def test_the_rooms_beside_the_core_know_the_verbs_at_most(name):
    found = imports(name)
    assert not packages(found) & {"peft", "bitsandbytes"}
    assert not ours(found) & {"course", "show", "bench"}


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("costs/")])
def test_costs_know_no_trainer(name):
    """They predict from a config. What is measured is handed to them; benches and tests load the models."""
    found = imports(name)
    assert packages(found) <= {"torch", "transformers", "peftlab", *sys.stdlib_module_names}
    parts = {part for part in ours(found) if (PACKAGE / part).is_dir() or f"{part}.py" in FILES}
    assert parts <= {"costs", "methods", "surgery", "errors"}
    if name not in ("costs/live.py",):  # a config is read, and a table printed, before torch is needed
        assert not packages(imports(name, only_at_the_top=True)) & {"torch", "transformers"}


def test_nobody_below_imports_what_sits_on_top():
    top = {"course", "show", "bench"}
    for name in FILES:
        if name.split("/")[0] not in top:
            assert not ours(imports(name)) & top, name


def test_only_the_comparing_files_see_peft():
    knowing = {name for name in FILES if "peft" in packages(imports(name))}
    assert {n for n in knowing if n.split("/")[0] not in ("course", "bench")} <= {"parity.py", "doctor.py"}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_ever_unpickled(name):
    found = imports(name)
    assert not {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & packages(found)
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in ("load", "save"), f"{name}:{node.lineno}"
        if isinstance(node, ast.Call):
            trusting = [k for k in node.keywords if k.arg in ("trust_remote_code", "allow_pickle")]
            assert not any(getattr(k.value, "value", None) is True for k in trusting), f"{name}:{node.lineno}"
            assert not (isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")), f"{name}:{node.lineno}"


def test_importing_the_package_is_cheap():
    code = (
        "import sys, peftlab; heavy = {'torch', 'transformers', 'peft', 'numpy', 'safetensors'} & set(sys.modules); "
        "assert not heavy, heavy; import peftlab.errors; assert 'torch' not in sys.modules; "
        "peftlab.attach; assert 'torch' in sys.modules and 'peft' not in sys.modules; "
        "assert 'transformers' not in sys.modules; print('cheap')"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert ran.stdout.strip() == "cheap", ran.stderr


def test_every_file_can_be_read_on_its_own():
    for name, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        if text.strip():
            assert ast.get_docstring(tree), f"{name} does not say what it is for"
        if len(tree.body) > 1:
            assert "from __future__ import annotations" in text, name


def test_the_detectors_detect():
    """The rules above would notice: they see what a file really imports."""
    assert "peft" in packages(imports("parity.py"))
    assert "peft" not in packages(imports("parity.py", only_at_the_top=True))
    assert "surgery" in ours(imports("methods/reparam/lora.py"))
