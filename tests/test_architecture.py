"""Who may import whom, and what no file of the package may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "peftlab"
FILES = sorted(PACKAGE.rglob("*.py"))
METHODS = [path for path in FILES if (PACKAGE / "methods") in path.parents]
KNOWN_TO_METHODS = {"surgery", "hosts", "targeting", "errors", "runtime", "methods"}


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it, but for type checking."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "peftlab" else {node.module or ""}
    return found


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_methods_know_torch_and_the_core_alone(path):
    for name in imported(path):
        top, _, rest = name.partition(".")
        assert top not in ("peft", "adapters", "accelerate", "bitsandbytes"), f"{path.name} imports {name}"
        if top == "peftlab":
            assert rest.split(".")[0] in KNOWN_TO_METHODS, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_those_on_top_see_what_is_on_top(path):
    room = path.relative_to(PACKAGE).parts[0]
    above = {"course", "show", "bench"}
    if room in above:
        return
    seen = {name.split(".")[1] for name in imported(path) if name.startswith("peftlab.")}
    assert not seen & above, f"{path.name} imports {seen & above}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_parity_and_doctor_see_the_reference(path):
    if path.stem not in ("parity", "doctor"):
        assert not {name for name in imported(path) if name.split(".")[0] == "peft"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_ever_unpickled(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {name for name in imported(path) if name.split(".")[0] in ("pickle", "dill", "joblib", "cloudpickle")}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not calls & {"torch.load", "torch.save", "eval", "exec"}


def test_importing_peftlab_is_cheap():
    code = "import sys, peftlab; assert 'torch' not in sys.modules; assert peftlab.attach; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_an_unknown_verb_names_the_verbs():
    import peftlab

    with pytest.raises(AttributeError, match="attach, detach"):
        peftlab.atach  # noqa: B018


def test_a_new_method_needs_one_file_and_no_list(tmp_path):
    """A file put into a copy of the package is found, saved under its own peft_type and attached."""
    import shutil

    shutil.copytree(PACKAGE, tmp_path / "peftlab", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "peftlab/methods/selective/added_bias.py").write_text(
        '''
from dataclasses import dataclass
import torch
from torch import nn
from peftlab.methods.base import Adapter, Method, method
class Added(Adapter):
    def __init__(self, site):
        super().__init__(site)
        self.beft_bias = nn.Parameter(torch.zeros(1, site.out_features))
    def forward(self, inner, x):
        return inner(x) + self.beft_bias
    def merged(self, W, b):
        return W, self.beft_bias[0] + (0 if b is None else b)
@method
class AddedBias(Method):
    target_modules: list[str] | None = None
    peft_type = "BEFT"
    def build(self, site, shared):
        return Added(site)
''',
        encoding="utf-8",
    )
    code = """
import torch, tempfile, peftlab
from torch import nn
from peftlab.methods import AddedBias
model = nn.Sequential(nn.Linear(3, 5, bias=False))
x = torch.randn(2, 3)
before = model(x)
peftlab.attach(model, AddedBias(target_modules=["0"]))
next(p for p in model.parameters() if p.requires_grad).data += 1
assert torch.allclose(model(x), before + 1)
folder = peftlab.save(model, tempfile.mkdtemp())
assert torch.allclose(peftlab.load(peftlab.detach(model), folder)(x), before + 1)
assert torch.allclose(peftlab.merge(model)(x), before + 1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PATH": "", "PYTHONWARNINGS": "ignore"})
