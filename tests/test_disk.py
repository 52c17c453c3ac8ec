"""A full disk and a read-only folder: the file is named, and no part of a file is left.

Real file systems are used where mounting is allowed, and a limit on file size elsewhere.
"""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # writes or reads whole twins

BIN = Path(sys.executable).parent


def mounted(path, options):
    "Mount a tmpfs on `path`, or skip the test where that is not allowed."
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True
    ).returncode:
        pytest.skip("mounting a file system is not allowed here")
    return path


@pytest.fixture
def full(tmp_path):
    disk = mounted(tmp_path / "full", "size=128k")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def read_only(tmp_path):
    disk = mounted(tmp_path / "ro", "ro")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    from emo_lib.twins.twin import write_twin

    root = tmp_path_factory.mktemp("twin") / "SEED"
    write_twin("SEED", root, subjects=1, seconds_per_trial=4, features=None)
    return root


def emo(*args, **kw):
    return subprocess.run([BIN / "emo", *map(str, args)], capture_output=True, text=True, **kw)


def temporary_files(folder):
    return [p for p in folder.rglob("*") if p.is_file() and ".tmp" in p.name]


def refused(run, folder, reason):
    "The command failed and named the folder and the reason, without a traceback."
    assert run.returncode == 1
    assert str(folder) in run.stderr
    assert reason in run.stderr
    assert "Traceback" not in run.stderr


def test_features_on_a_full_disk(twin, full):
    out = full / "features"
    run = emo("features", "--dataset", "SEED", "--root", twin, "--out", out, "--window-s", 1)
    refused(run, out, "No space left")
    assert temporary_files(full) == []
    assert list(full.rglob("features.json")) == []


def test_features_in_a_read_only_folder(twin, read_only):
    out = read_only / "features"
    run = emo("features", "--dataset", "SEED", "--root", twin, "--out", out, "--window-s", 1)
    refused(run, out, "Read-only")


def test_a_twin_on_a_full_disk(full):
    root = full / "SEED"
    size = ("--subjects", 1, "--seconds-per-trial", 4)
    run = emo("twin", "--dataset", "SEED", "--root", root, *size)
    refused(run, root, "free")
    assert not (root / "TWIN.json").exists()
    assert temporary_files(full) == []


def test_a_file_that_may_not_grow(tmp_path):
    "The same without mounting: the system refuses to let the file grow."
    from emo_lib.base.store import atomic_path

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(OSError) as e, atomic_path(tmp_path / "result.json") as tmp:
            tmp.write_bytes(b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "result.json" in str(e.value)
    assert list(tmp_path.iterdir()) == []
