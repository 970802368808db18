"""Takes one safeguard at a time out of a copy of the core, and shows that the tests notice.

Each mutation replaces a few lines in a temporary copy of the package; the tests then run against the copy. A mutation
that no test notices is a hole in the tests, and makes the exit code 1.

    python benchmarks/mutations.py [NAME ...] [--tests PATH ...] [--check]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "packages" / "bz-core" / "src" / "bz"
TESTS: Final = [
    "packages/bz-core/tests/faults",
    "packages/bz-core/tests/test_checkpoint.py",
    "packages/bz-core/tests/test_resume.py",
    "packages/bz-core/tests/test_resume_features.py",
    "packages/bz-core/tests/test_joining.py",
]


class Mutation(NamedTuple):
    """A safeguard taken out: in `file`, `before` (which is there once) becomes `after`."""

    file: str
    before: str
    after: str


MUTATIONS: Final = {
    "no fsync of the file": Mutation(
        "durable.py",
        "            file.flush()\n            os.fsync(file.fileno())\n",
        "            file.flush()\n",
    ),
    "no fsync of the folder": Mutation(
        "durable.py",
        "        raise\n    sync_folder(path.parent)\n",
        "        raise\n",
    ),
    "no fsync above a new folder": Mutation(
        "durable.py",
        "    folder.mkdir(exist_ok=True)\n    sync_folder(folder.parent)\n",
        "    folder.mkdir(exist_ok=True)\n",
    ),
    "no rename: written in place": Mutation(
        "durable.py",
        '    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")\n',
        "    path.unlink(missing_ok=True)\n    temporary = path\n",
    ),
    "temporary file left behind by a failure": Mutation(
        "durable.py",
        "        temporary.unlink(missing_ok=True)\n        raise\n",
        "        raise\n",
    ),
    "temporary files of killed processes kept": Mutation(
        "training/checkpoint.py", "        remove_leftovers(self.folder)\n", ""
    ),
    "older checkpoints deleted first": Mutation(
        "training/saving.py",
        "            write_checkpoint(state, request.path)\n",
        "            for path in request.path.parent.glob('*.pth'):\n                path.unlink()\n"
        "            write_checkpoint(state, request.path)\n",
    ),
    "no verification": Mutation(
        "training/checkpoint.py",
        "    if not _is_whole(content):\n",
        "    if not content:\n",
    ),
    "verification without the digest": Mutation(
        "training/checkpoint.py",
        "    digest = hashlib.sha256(archive)\n    digest.update(_NO_COMMENT)\n"
        "    return comment == _MARK + digest.hexdigest().encode()\n",
        "    return True\n",
    ),
    "random states not restored": Mutation(
        "training/state.py",
        '        restore_random_state(own["random"])\n',
        "",
    ),
    "random state of the position not restored": Mutation(
        "training/data.py",
        "        restore_random_state(position)\n",
        "",
    ),
    "random state of the epoch's beginning not restored": Mutation(
        "training/data.py",
        '        restore_random_state(self._start["random"])\n',
        "",
    ),
    "generators of loaders not restored": Mutation(
        "training/data.py",
        "            generator.set_state(state)\n",
        "            pass\n",
    ),
    "NumPy's random state not restored": Mutation(
        "training/seeding.py",
        '        _restore_numpy_state(state["numpy"])\n',
        "        pass\n",
    ),
    "optimizer not restored": Mutation(
        "training/state.py",
        "        optimizer.load_state_dict(dict(state))\n",
        "        pass\n",
    ),
    "schedulers not restored": Mutation(
        "training/state.py",
        '        self.schedulers.load_state_dict(own["lr_schedulers"])\n',
        "",
    ),
    "accumulated gradients not restored": Mutation(
        "training/state.py",
        '        self.optimization.load_state_dict(own["accumulation"])\n',
        "",
    ),
    "losses not restored": Mutation(
        "training/state.py",
        '        self.progress.training_loss.restore(*own["losses"]["training"])\n',
        "",
    ),
    "metrics not restored": Mutation(
        "training/state.py",
        '            metrics.load_state_dict(own["metrics"][phase])\n',
        "            pass\n",
    ),
    "batches that wait for metrics not saved": Mutation(
        "training/metrics.py",
        "        self._take_in_waiting()\n        states =",
        "        states =",
    ),
    "history not restored": Mutation(
        "training/state.py",
        '        self.history[:] = own["history"]\n',
        "",
    ),
    "plugins not restored": Mutation(
        "training/state.py",
        '        self.plugins.load_state_dict(own["plugins"])\n',
        "",
    ),
}


def mutated(mutation: Mutation) -> str:
    """Return the text of the file with the mutation.

    Raises:
        ValueError: If the text is not there exactly once: the package has changed, and the mutation must follow.
    """
    text = (PACKAGE / mutation.file).read_text(encoding="utf-8")
    if text.count(mutation.before) != 1:
        raise ValueError(f"{mutation.file} holds {text.count(mutation.before)} times: {mutation.before!r}")
    return text.replace(mutation.before, mutation.after)


def failing_tests(mutation: Mutation | None, tests: list[str]) -> list[str]:
    """Return the tests that fail against a copy of the package with the mutation, or without any."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "src"
        shutil.copytree(PACKAGE, source / "bz", ignore=shutil.ignore_patterns("__pycache__"))
        if mutation is not None:
            (source / "bz" / mutation.file).write_text(mutated(mutation), encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": str(source),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(Path(name) / "hypothesis"),
        }
        where = subprocess.run(
            [sys.executable, "-c", "import bz; print(bz.__file__)"],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert where.stdout.startswith(str(source)), where.stdout
        finished = subprocess.run(  # noqa: S603 - our own tests
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *tests],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    return re.findall(r"^(?:FAILED|ERROR) (?:\S*/)?(.+?)(?: - .*)?$", finished.stdout, re.MULTILINE)


def main() -> None:
    """Run the tests against the package as it is, and against each mutation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations to try; all by default")
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--check", action="store_true", help="only look whether the package still has what they change")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(MUTATIONS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(MUTATIONS)}")
    for name in arguments.names or MUTATIONS:
        mutated(MUTATIONS[name])
    if arguments.check:
        return
    broken = failing_tests(None, arguments.tests)
    if broken:
        sys.exit(f"The tests fail without any mutation: {', '.join(broken)}")
    print("no mutation: 0 tests fail", flush=True)
    unnoticed = []
    for name in arguments.names or MUTATIONS:
        began = time.perf_counter()
        failures = failing_tests(MUTATIONS[name], arguments.tests)
        print(f"{name}: {len(failures)} tests fail ({time.perf_counter() - began:.0f} s)", flush=True)
        for failure in failures:
            print(f"    {failure}", flush=True)
        if not failures:
            unnoticed.append(name)
    if unnoticed:
        sys.exit(f"No test notices: {', '.join(unnoticed)}")


if __name__ == "__main__":
    main()
