"""The wheel, installed into an empty environment outside the checkout, chats.

The environment sees exactly the distributions that the wheel's metadata asks for with the extra `chat`, and theirs,
linked from the environment that runs the tests. So a dependency that is used and not declared is an ImportError here,
and the test needs no network.
"""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OURS = {"refquant", "runtime", "conformance"}


def run(*command: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess:
    """Run a program in UTF-8 with neither the checkout nor this environment on its path, and expect an exit status."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env["PYTHONUTF8"] = "1"
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, encoding="utf-8")
    assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def requirements(dist: Distribution, extra: str) -> list[Requirement]:
    """What `dist` needs here when it is installed with `extra`."""
    every = [Requirement(line) for line in dist.requires or []]
    return [need for need in every if need.marker is None or need.marker.evaluate({"extra": extra})]


def closure(wheel: Distribution, extra: str) -> dict[str, Distribution]:
    """Every distribution that the wheel brings along, by name."""
    found = {}
    wanted = requirements(wheel, extra)
    while wanted:
        need = wanted.pop()
        if need.name not in found:
            found[need.name] = distribution(need.name)
            wanted += [more for name in need.extras or {""} for more in requirements(found[need.name], name)]
    return found


def link(dist: Distribution, site: Path) -> None:
    """Make the top-level files and folders of `dist` visible in the folder `site`."""
    for top in {file.parts[0] for file in dist.files or []} - {"..", "__pycache__"}:
        target = site / top
        if not target.exists():
            target.symlink_to(Path(str(dist.locate_file(top))).resolve())


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def installed(wheel: Path, extra: str, venv: Path) -> Path:
    """A new environment that holds the wheel, and links to what the wheel asks for with `extra`."""
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    python = venv / "bin" / "python"
    run(*PIP, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=venv.parent)
    (site,) = venv.glob("lib/python*/site-packages")
    (info,) = site.glob("refquant-*.dist-info")
    for dist in closure(Distribution.at(info), extra).values():
        link(dist, site)
    return venv


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built through links to the sources, so that no build folder appears in the checkout or is reused."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in [*OURS, "pyproject.toml", "README.md", "LICENSE"]:
        (source / name).symlink_to(ROOT / name)
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def core(wheel, tmp_path_factory) -> Path:
    """An environment after `pip install refquant`."""
    return installed(wheel, "", tmp_path_factory.mktemp("core") / "venv")


@pytest.fixture(scope="module")
def chat(wheel, tmp_path_factory) -> Path:
    """An environment after `pip install 'refquant[chat]'`."""
    return installed(wheel, "chat", tmp_path_factory.mktemp("chat") / "venv")


def test_the_wheel_holds_the_three_packages_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == OURS
    assert "runtime/bundled/tiny-chat-Q8_0.gguf" in names
    assert "runtime/bundled/README.md" in names
    assert "conformance/README.md" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_module_of_the_checkout_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {path.relative_to(ROOT).as_posix() for top in OURS for path in (ROOT / top).rglob("*.py")}
    assert modules - names == set()


def test_the_core_works_with_numpy_alone(core):
    (site,) = core.glob("lib/python*/site-packages")
    assert {path.name for path in site.iterdir() if path.is_symlink() and path.suffix != ".dist-info"} <= {
        "numpy",
        "numpy.libs",
    }
    assert "Q4_0" in run(core / "bin" / "refquant", "schemes", cwd=core).stdout


def test_the_chat_without_its_extra_says_what_to_install(core):
    done = run(core / "bin" / "refquant-chat", "-p", "Why?", cwd=core, status=2)
    assert "pip install 'refquant[chat]'" in done.stderr
    assert done.stdout == ""


def test_both_commands_explain_themselves(core):
    for name in ("refquant", "refquant-chat"):
        assert run(core / "bin" / name, "--help", cwd=core).stdout.startswith(f"usage: {name}")


def test_packages_come_from_the_environment_and_not_from_the_checkout(chat):
    code = "import refquant, runtime, conformance; print(refquant.__file__, runtime.__file__, conformance.__file__)"
    paths = run(chat / "bin" / "python", "-c", code, cwd=chat).stdout.split()
    assert all(Path(path).is_relative_to(chat) for path in paths), paths


def test_the_installed_chat_answers_with_the_bundled_model(chat):
    command = chat / "bin" / "refquant-chat"
    done = run(command, "-p", "What is malloc?", "-n", "8", "--temp", "0", cwd=chat)
    assert done.stdout.startswith("malloc is a C function used to")
