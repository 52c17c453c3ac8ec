"""A full disk and a read-only folder: the file is named, nothing half-written is left. Real file systems where mounting is allowed, a limit on file size elsewhere."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


def no_debris(folder):
    return [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]


def test_features_on_a_full_disk(twin, full):
    run = emo(
        "features", "--dataset", "SEED", "--root", twin, "--out", full / "features", "--window-s", 1
    )
    assert (
        run.returncode == 1
        and str(full / "features") in run.stderr
        and "No space left" in run.stderr
        and "Traceback" not in run.stderr
    )
    assert not [p for p in no_debris(full) if ".tmp" in p.name or p.name == "features.json"]


def test_features_in_a_read_only_folder(twin, read_only):
    run = emo(
        "features",
        "--dataset",
        "SEED",
        "--root",
        twin,
        "--out",
        read_only / "features",
        "--window-s",
        1,
    )
    assert (
        run.returncode == 1
        and str(read_only / "features") in run.stderr
        and "Read-only" in run.stderr
        and "Traceback" not in run.stderr
    )


def test_a_twin_on_a_full_disk(full):
    run = emo(
        "twin",
        "--dataset",
        "SEED",
        "--root",
        full / "SEED",
        "--subjects",
        1,
        "--seconds-per-trial",
        4,
    )
    assert (
        run.returncode == 1
        and str(full / "SEED") in run.stderr
        and "free" in run.stderr
        and "Traceback" not in run.stderr
    )
    assert not (full / "SEED/TWIN.json").exists() and not [
        p for p in no_debris(full) if ".tmp" in p.name
    ]


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
    assert "result.json" in str(e.value) and list(tmp_path.iterdir()) == []
