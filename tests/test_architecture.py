"""The house rules that a machine can read: imports run one way, packages are packages, rooms stay small."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

# place -> places that it may import, besides itself; entry scripts, benchmarks and tests may import everything
MAY_IMPORT = {
    "utils": set(),
    "models": {"utils"},
    "datasets": {"utils"},
    "synapse_train_test": {"models", "datasets", "utils"},
    "isic_polyp_rectal": {"models", "datasets", "utils"},
    "recipes": {"synapse_train_test", "isic_polyp_rectal", "datasets", "utils"},
    "tools": {"recipes", "synapse_train_test", "isic_polyp_rectal", "models", "datasets", "utils"},
}
PACKAGES = {name for name in MAY_IMPORT if (ROOT / name).is_dir()} | {"benchmarks", "tests"}
# what lies loose in utils/ knows no room of it
GROUND = ("config", "command_line", "errors", "files", "log", "device", "distributed", "checkpoint")
GROUND += ("checkpoint_content", "fields", "inherited")
ROOMS = ("training", "inference", "scoring", "results")
LAZY = {
    "SimpleITK",
    "medpy",
    "mamba_ssm",
    "matplotlib",
    "jinja2",
    "huggingface_hub",
    "tensorboard",
    "onnxruntime",
    "safetensors",
    "gradio",
}
SOURCES = sorted(p for place in PACKAGES for p in (ROOT / place).rglob("*.py")) + sorted(ROOT.glob("*.py"))
PRODUCT = [path for path in SOURCES if not path.is_relative_to(ROOT / "tests")]


def place_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute names of what a file imports, wherever in it; `from utils import checkpoint` names the module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_run_one_way():
    ours = PACKAGES | set(MAY_IMPORT) | {path.stem for path in ROOT.glob("*.py")}
    for path in PRODUCT:
        place = place_of(path)
        if place in MAY_IMPORT:
            above = {name for name in imported(path) if name.split(".")[0] in ours - MAY_IMPORT[place] - {place}}
            assert not above, f"{path.relative_to(ROOT)} imports {', '.join(sorted(above))}"


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_of_utils_knows_no_room(name):
    above = {n for n in imported(ROOT / "utils" / f"{name}.py") if n.split(".")[:1] == ["utils"]}
    assert not {n for n in above if n.split(".")[1] in ROOMS}


def test_every_package_has_an_init_file():
    for folder in {path.parent for path in SOURCES} - {ROOT}:
        assert (folder / "__init__.py").is_file(), folder


def test_rooms_hold_a_dozen_loose_files():
    for folder in {path.parent for path in PRODUCT} - {ROOT}:
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 12, folder


def test_no_path_of_a_machine_and_no_edit_of_the_search_path():
    pattern = re.compile(r"""["'](/(home|root|Users|work|mnt|data)/|[A-Z]:\\\\)|sys\.path\.(insert|append)""")
    for path in PRODUCT:
        found = pattern.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found.group()}"


def test_heavy_libraries_are_imported_where_they_are_needed():
    """Training on a bare GPU node needs none of them."""
    for path in PRODUCT:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        top = {alias.name.split(".")[0] for node in body if isinstance(node, ast.Import) for alias in node.names}
        top |= {(node.module or "").split(".")[0] for node in body if isinstance(node, ast.ImportFrom)}
        assert not LAZY & top, path


def test_what_is_required_is_imported():
    modules = {
        "opencv-python-headless": "cv2",
        "Pillow": "PIL",
        "Jinja2": "jinja2",
        "tensorboard": "torch.utils.tensorboard",
    }
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [re.split("[>=<]", line)[0] for line in lines if line and not line.startswith("#")]
    used = {name for path in PRODUCT if place_of(path) != "benchmarks" for name in imported(path)}
    for name in names:
        module = modules.get(name, name)
        assert any(found == module or found.startswith(module + ".") for found in used), f"{name} is never imported"


def test_the_scripts_start_without_the_compiler():
    """PyTorch's compiler and Triton take longer to import than everything else of this project together."""
    code = "import sys, train, test, predict; print([name for name in sys.argv[1:] if name in sys.modules])"
    words = [sys.executable, "-c", code, "torch._dynamo", "triton", *sorted(LAZY)]
    assert subprocess.check_output(words, cwd=ROOT, text=True) == "[]\n"


def test_the_lock_file_holds_every_pinned_version():
    """`make lock` resolves all pins together, so it fails where two of them exclude each other."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-").splitlines()
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8").lower().replace("_", "-")
    pins = [line.split(";")[0].strip() for line in lines if not line.startswith("#")]
    missing = [pin for pin in pins if not re.search(rf"^{re.escape(pin)} ", locked, re.MULTILINE)]
    assert not missing, f"run make lock: {missing}"


def test_nothing_under_the_gpl_is_imported_and_every_licence_is_listed():
    users = [path for path in PRODUCT if any(name.split(".")[0] == "medpy" for name in imported(path))]
    assert {place_of(path) for path in users} <= {"benchmarks"}
    listed = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for path in ROOT.glob("requirements*.txt"):
        if path.name != "requirements-dev.txt":
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] not in "#-"]
            names = {re.split("[>=<]", line)[0] for line in lines}
            assert "medpy" not in names
            assert not {name for name in names if not re.search(rf"\b{re.escape(name)}\b", listed)}, path.name
