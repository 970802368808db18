"""The checks of the workspace, one session each: `nox -l` lists them.

All sessions but `peers` share one environment, which the session `environment` installs and keeps up to date.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"  # needs no ensurepip, and leaves installing to pip and its settings
nox.options.sessions = ["lint", "typecheck", "layers", "tests"]

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
ENVIRONMENT = ROOT / ".nox" / "environment"
SCRIPTS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")


@nox.session(reuse_venv=True)
def environment(session: nox.Session) -> None:
    """Install every package, editable, and every tool into the shared environment."""
    stamp = Path(session.virtualenv.location, "bz-workspace")
    fingerprint = workspace_fingerprint()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        session.log("up to date")
        return
    groups = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "environment")
    editable = [argument for package in PACKAGES for argument in ("--editable", with_extras(package))]
    # An environment built for a wheel knows nothing of `--constraint`; pip 25.3 renamed the variable it reads instead.
    constrained = {"PIP_CONSTRAINT": str(CONSTRAINTS), "PIP_BUILD_CONSTRAINT": str(CONSTRAINTS)}
    session.install("--constraint", str(CONSTRAINTS), *editable, *groups, env=constrained)
    stamp.write_text(fingerprint, encoding="utf-8")


@nox.session(python=False, requires=["environment"])
def demo(session: nox.Session) -> None:
    """Train on handwritten digits, with the progress on the terminal."""
    example = ROOT / "examples" / "digits"
    with session.chdir(example):
        run(session, "bz", "train", *session.posargs)
    newest = max((example / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    session.log(f"The run is in {newest}")


@nox.session(python=False, requires=["environment"])
def examples(session: nox.Session) -> None:
    """Train every example to its end, or those that are named."""
    session.env["OMP_NUM_THREADS"] = "1"  # torch's threads only wait for one another with models this small
    for example in session.posargs or sorted(path.parent.name for path in ROOT.glob("examples/*/train.py")):
        with session.chdir(ROOT / "examples" / example):
            run(session, "bz", "train")


@nox.session(python=False, requires=["environment"])
def tests(session: nox.Session) -> None:
    """Run the tests of every package and those that span packages."""
    run(session, "pytest", "--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile", *session.posargs)


@nox.session(python=False, requires=["environment"])
def coverage(session: nox.Session) -> None:
    """Run the tests and report the lines and branches that they do not reach."""
    run(session, "pytest", "--cov", "--cov-report=term-missing", "--cov-report=xml", *session.posargs)


@nox.session(python=False, requires=["environment"])
def lint(session: nox.Session) -> None:
    """Check style and format."""
    run(session, "ruff", "check", *session.posargs)
    run(session, "ruff", "format", "--check")


@nox.session(python=False, requires=["environment"])
def typecheck(session: nox.Session) -> None:
    """Check types."""
    run(session, "mypy", "noxfile.py", *(str(package / "src") for package in PACKAGES))
    # Test modules and scripts of different folders may share a name, so each folder is a run of its own.
    folders = [
        *ROOT.glob("packages/*/tests"),
        ROOT / "tests",
        *ROOT.glob("examples/*"),
        ROOT / "benchmarks",
        ROOT / "docs",
    ]
    for folder in folders:
        if any(folder.glob("**/*.py")):
            run(session, "mypy", str(folder))


@nox.session(python=False, requires=["environment"])
def layers(session: nox.Session) -> None:
    """Check that imports point downward only."""
    run(session, "lint-imports")


@nox.session(python=False, requires=["environment"])
def wheels(session: nox.Session) -> None:
    """Build every package and install each into a clean environment."""
    run(session, "pytest", "-m", "wheels", *session.posargs)


@nox.session(python=False, requires=["environment"])
def mutations(session: nox.Session) -> None:
    """Take each safeguard of the checkpoints out in turn, and check that the tests notice."""
    run(session, "python", "benchmarks/mutations.py", *session.posargs)


@nox.session(reuse_venv=True)
def peers(session: nox.Session) -> None:
    """Measure bz beside the tools that are named in `benchmarks/tools`, in an environment of their own."""
    constrained = ("--constraint", str(CONSTRAINTS))
    tools = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "peers")
    editable = [argument for package in PACKAGES for argument in ("--editable", with_extras(package))]
    session.install(*constrained, *editable, *tools)
    # It comes with fastai, is built for one kind of torch, and breaks the imports of others where it is another kind.
    session.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision", silent=True)
    session.run("python", "benchmarks/step_cost.py", *session.posargs)


def run(session: nox.Session, program: str, *arguments: str) -> None:
    """Run a program of the shared environment, as if the environment were activated."""
    path = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])
    session.run(str(SCRIPTS / program), *arguments, env={"PATH": path, "VIRTUAL_ENV": str(ENVIRONMENT)}, external=True)


def with_extras(package: Path) -> str:
    """Return the package's path with all of its extras, as pip takes it."""
    extras = nox.project.load_toml(package / "pyproject.toml")["project"].get("optional-dependencies", {})
    return f"{package}[{','.join(extras)}]" if extras else str(package)


def workspace_fingerprint() -> str:
    """Return a digest of everything that decides what the shared environment holds."""
    files = [CONSTRAINTS, ROOT / "pyproject.toml", *(package / "pyproject.toml" for package in PACKAGES)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
