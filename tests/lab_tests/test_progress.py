"""A run's progress is said while its own output is held back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit


def test_lines_come_for_a_failure_and_for_the_end_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("def test_a(): pass\ndef test_b(): assert False\n")
    (tmp_path / "test_two.py").write_text("def test_c(): pass\n")
    read_end, write_end = os.pipe()
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.progress", "-p", "no:cacheprovider"]
    argv += ["--progress=namespaces", f"--progress-fd={write_end}", f"--rootdir={tmp_path}", "."]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env=environment,
        pass_fds=[write_end],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        said = [line.rpartition(", ")[0] or line.strip() for line in lines]
    assert done.returncode == 1, done.stdout + done.stderr
    assert said == [
        "namespaces 3 tests",
        "namespaces FAILED test_one.py::test_b (call)",
        "namespaces 2/3 test_one.py, 1 failed",
        "namespaces 3/3 done, 1 failed",
    ]
