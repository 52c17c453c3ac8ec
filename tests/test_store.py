"""Fingerprints of files: parallel processes, unusable caches, files that change while read.

The functions are explained in nbs/base/30_store.
"""

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest

from emo_lib.base import store
from emo_lib.base.store import cache_folder, file_fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "SETTLED_S", 0.0)
    return tmp_path / "cache"


def sha(content):
    return hashlib.sha256(content).hexdigest()[:16]


def count_reads(monkeypatch):
    calls, digest = [], hashlib.file_digest

    def counted(f, kind):
        calls.append(f.name)
        return digest(f, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return calls


def test_content_decides_not_the_name(tmp_path):
    a, b = tmp_path / "a.mat", tmp_path / "b.mat"
    a.write_bytes(b"x" * 3_000_000)
    b.write_bytes(b"x" * 3_000_000)
    assert file_fingerprint(a) == file_fingerprint(str(b)) == sha(b"x" * 3_000_000)
    b.write_bytes(b"")
    assert file_fingerprint(b) == sha(b"")


def test_kept_while_nothing_changes_and_through_links(tmp_path, monkeypatch):
    a = tmp_path / "a.mat"
    a.write_bytes(b"1")
    (tmp_path / "link.mat").symlink_to(a)
    file_fingerprint(a)
    calls = count_reads(monkeypatch)
    assert file_fingerprint(a) == sha(b"1")
    assert file_fingerprint(tmp_path / "link.mat") == sha(b"1")
    assert calls == []


def test_same_size_and_same_time_but_other_content(tmp_path):
    a = tmp_path / "a.mat"
    a.write_bytes(b"1")
    os.utime(a, (1e9, 1e9))
    file_fingerprint(a)
    time.sleep(0.05)
    a.write_bytes(b"2")
    os.utime(a, (1e9, 1e9))
    assert file_fingerprint(a) == sha(b"2")


def test_a_fresh_file_is_not_kept(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(store, "SETTLED_S", 60.0)
    a = tmp_path / "a.mat"
    a.write_bytes(b"1")
    file_fingerprint(a)
    assert not cache.exists()


@pytest.mark.parametrize(
    "note", [b"", b"[1]", b"null", b"\xff\xfe", b'{"path": 1}', b"[" * 100_000]
)
def test_a_damaged_note_costs_only_time(note, tmp_path, cache):
    a = tmp_path / "a.mat"
    a.write_bytes(b"1")
    file_fingerprint(a)
    (path,) = cache.rglob("*.json")
    whole = path.read_bytes()
    path.write_bytes(note)
    assert file_fingerprint(a) == sha(b"1")
    assert path.read_bytes() == whole


def test_a_note_without_a_fingerprint_is_ignored(tmp_path, cache):
    a = tmp_path / "a.mat"
    a.write_bytes(b"1")
    file_fingerprint(a)
    (path,) = cache.rglob("*.json")
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"fingerprint": "not sixteen digits"})
    )
    assert file_fingerprint(a) == sha(b"1")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMO_CACHE", str(tmp_path / "file" / "below"))
    a = tmp_path / "a.mat"
    a.write_bytes(b"1")
    assert file_fingerprint(a) == file_fingerprint(a) == sha(b"1")


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    a = tmp_path / "a.mat"
    a.write_bytes(b"1" * 100)
    digest = hashlib.file_digest

    def slow(f, kind):
        found = digest(f, kind)
        with open(a, "ab") as g:
            g.write(b"2")
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with pytest.raises(OSError, match="a.mat") as e:
        file_fingerprint(a)
    assert "changed while it was read" in str(e.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.mat"):
        file_fingerprint(tmp_path / "a.mat")


def test_many_processes_at_once(tmp_path, cache):
    """Four processes fingerprint the same twenty files with an empty cache.

    They agree, and no incomplete note and no temporary file remains.
    """
    for i in range(20):
        (tmp_path / f"{i}.mat").write_bytes(bytes([i]) * 200_000)
    code = (
        "import sys, json, emo_lib.base.store as s; s.SETTLED_S = 0.0; from pathlib import Path;"
        "paths = 3 * sorted(Path(sys.argv[1]).glob('*.mat'));"
        "print(json.dumps([s.file_fingerprint(p) for p in paths]))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = {p.communicate()[0] for p in running}
    assert {p.returncode for p in running} == {0}
    assert len(outputs) == 1
    expected = [sha(p.read_bytes()) for p in sorted(tmp_path.glob("*.mat"))]
    assert json.loads(outputs.pop())[:20] == expected
    assert len(list(cache.rglob("*.json"))) == 20
    assert not [p for p in cache.rglob("*") if ".tmp" in p.name]


@pytest.mark.parametrize(
    "platform, env, want",
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/emo_lib"),
        ("linux", {}, "/home/me/.cache/emo_lib"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/emo_lib"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/emo_lib"),
        ("linux", {"EMO_CACHE": "~/c"}, "/home/me/c"),
    ],
)
def test_cache_folder_of_each_platform(platform, env, want, monkeypatch):
    for k in ("EMO_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(k, raising=False)
    for k, v in (env | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(k, v)
    monkeypatch.setattr(store.sys, "platform", platform)
    assert str(cache_folder()) == want
