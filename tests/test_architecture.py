"""The house rules that a machine can read: imports run one way, packages are packages, files stay small."""

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGES = ("models", "datasets", "utils", "synapse_train_test", "isic_polyp_rectal", "tools", "benchmarks", "tests")
FOUNDATION = {f"utils.{name}" for name in ("config", "errors", "log", "device", "distributed", "checkpoint")}
# package -> packages it may import; everything may import the foundation
MAY_IMPORT = {
    "models": {"models"},
    "datasets": {"datasets"},
    "utils": {"utils"},
    "synapse_train_test": {"synapse_train_test", "models", "datasets", "utils"},
    "isic_polyp_rectal": {"isic_polyp_rectal", "models", "datasets", "utils"},
    "tools": {"tools", "synapse_train_test", "isic_polyp_rectal", "models", "datasets", "utils"},
}
SOURCES = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))] + sorted(ROOT.glob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of the modules of this project that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in imported(path):
            allowed = name.split(".")[0] in MAY_IMPORT[package] or any(name.startswith(base) for base in FOUNDATION)
            # `from utils import checkpoint` names the module itself
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_nothing_imports_an_entry_script():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    for path in SOURCES:
        if path.parent == ROOT or path.is_relative_to(ROOT / "tests"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not scripts & {alias.name for alias in node.names}, path


def test_every_package_has_an_init_file():
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").is_file(), package


def test_files_stay_small():
    long = {
        str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long


def test_entry_scripts_are_short():
    for path in ROOT.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 75, path


def test_no_path_of_a_machine_and_no_edit_of_the_search_path():
    pattern = re.compile(r"""["'](/(home|root|Users|work|mnt|data)/|[A-Z]:\\\\)|sys\.path\.(insert|append)""")
    for path in SOURCES:
        if path.is_relative_to(ROOT / "tests"):
            continue
        found = pattern.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found.group()}"


def test_heavy_libraries_are_imported_where_they_are_needed():
    """Training on a bare GPU node needs neither SimpleITK nor MedPy nor mamba-ssm."""
    lazy = {"SimpleITK", "medpy", "mamba_ssm"}
    for path in SOURCES:
        if path.is_relative_to(ROOT / "tests"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        top |= {(node.module or "").split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert not lazy & top, path
    assert sys.version_info >= (3, 10)
