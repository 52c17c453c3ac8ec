"""Safe unpickling: what honest files hold is read as pickle reads it; everything else is refused by name before it runs, whatever is done to the bytes."""

import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from emo_lib.readers import unpickle

from emo_lib.data.unpickle import PickleFault, UnsafePickle, dump_python2, load_npz, peek, safe_load

MARK = "it_ran"


class Call:
    def __init__(self, f, *args, state=None):
        self.f, self.args, self.state = f, args, state

    def __reduce__(self):
        return (self.f, self.args) if self.state is None else (self.f, self.args, self.state)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(MARK).exists(), "a pickle ran"


def touch(protocol):
    return pickle.dumps(Call(os.system, f"touch {MARK}"), protocol=protocol)


# ---- refused by name


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: {"data": np.zeros(2), "label": x},
        lambda x: (1, (2, x)),
        lambda x: np.array([x], object),
        lambda x: {0: [np.array([[x]], object)]},
    ],
)
def test_a_command_is_refused_wherever_it_stands(protocol, wrap):
    data = pickle.dumps(wrap(Call(os.system, f"touch {MARK}")), protocol=protocol)
    with pytest.raises(UnsafePickle) as e:
        safe_load(data)
    assert e.value.name == f"{os.system.__module__}.system" and e.value.name in str(e.value)


@pytest.mark.parametrize(
    "what, name",
    [
        (Call(eval, f"open('{MARK}', 'w')"), "builtins.eval"),
        (Call(exec, f"open('{MARK}', 'w')"), "builtins.exec"),
        (Call(getattr, "", "join"), "builtins.getattr"),
        (Call(__import__, "os"), "builtins.__import__"),
        (Call(subprocess.Popen, ["touch", MARK]), "subprocess.Popen"),
        (Call(np.load, "x.npy"), "numpy.load"),
        (Call(np.memmap, "x", "u1"), "numpy.memmap"),
        (Call(np.fromfile, "/etc/passwd"), "numpy.fromfile"),
        (Call(io.open, MARK, "w"), "io.open"),
        (Call(bytes, 10**10), "with arguments"),
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (Call(np.ndarray, (10**10,)), "a call of numpy.ndarray"),
        (Path("x"), "Posix"),
        (os.system, "system"),
        (np.dtype("f8"), "bare numpy.dtype"),
        (np.ndarray, "bare numpy.ndarray"),
        (np.zeros(2, "f4,i4"), "numpy.dtype"),
        (np.zeros(2, "m8[s]"), "numpy.dtype(m8)"),
        (np.zeros(2, "V8"), "numpy.dtype(V8)"),
        (np.ma.array([1]), "ma."),
        (slice(3), "builtins.slice"),
        ({1, 2}, "EMPTY_SET"),
        (frozenset([1]), "FROZENSET"),
        (1j, "builtins.complex"),
        ({(1, 2): 3}, "dict key of type tuple"),
        ({None: 3}, "dict key"),
        (2**70, "more than 64 bits"),
        (-(2**63) - 1, "more than 64 bits"),
    ],
)
def test_other_things_are_refused_by_name(what, name):
    with pytest.raises(UnsafePickle) as e:
        safe_load(pickle.dumps(what))
    assert name in str(e.value)


@pytest.mark.parametrize(
    "data, name",
    [
        (b"cos\nsystem\n(S'touch it_ran'\ntR.", "os.system"),
        (b"(S'touch it_ran'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'touch it_ran'\no.", "os.system"),
        (b"\x80\x02\x82\x01.", "extension 1"),
        (b"\x80\x02\x83\x01\x02.", "extension"),
        (b"\x80\x02\x84\x01\x02\x03\x04.", "extension"),
        (b"\x80\x02Pany\n.", "outside object"),
        (b"\x80\x04\x8c\x02idQ.", "outside object"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x04\x8c\x02os\x94K\x01\x93.", "no text"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f8\x85\x81.", "NEWOBJ numpy.dtype"),
        (b"\x80\x02]}b.", "new state for a list"),
        (
            b"\x80\x02cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<U\x01xNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb.",
            "fields",
        ),
        (b"c_codecs\nencode\n(U\x01aU\x03hextR.", "_codecs.encode with hex"),
        (b"c_codecs\nencode\nK\x01\x85R.", "_codecs.encode"),
        (b"cnumpy\ndtype\n(tR.", "numpy.dtype"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85U\x01btR.",
            "class numpy.dtype",
        ),
        (b"c\x1b[31mos\nsystem\n.", "\\x1b[31mos.system"),
        (
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02O8I0\nI1\ntRU\x01xtR.",
            "scalar of objects",
        ),
    ],
)
def test_hand_written_attacks(data, name):
    with pytest.raises(UnsafePickle) as e:
        safe_load(data)
    assert name in str(e.value) and str(e.value).isprintable()


def test_the_naive_way_would_have_run_it(tmp_path):
    "The attacks above are real: the standard library runs this one."
    try:
        pickle.loads(touch(2))
        assert Path(MARK).exists()
    finally:
        Path(MARK).unlink()


def test_refusals_survive_a_worker_process():
    with pytest.raises(UnsafePickle) as e:
        safe_load(touch(2), "file.pkl")
    back = pickle.loads(pickle.dumps(e.value))
    assert str(back) == str(e.value) and back.name == e.value.name and back.where == "file.pkl"


# ---- bombs


def text_memo(op, n, size):
    return (
        b"\x80\x04\x8d"
        + struct.pack("<Q", size)
        + b"x" * size
        + b"q\x00c_codecs\nencode\nq\x01("
        + op * n
        + b"l."
    )


@pytest.mark.parametrize(
    "data",
    [
        text_memo(b"h\x01h\x00\x8c\x06latin1\x86R", 1000, 100_000),
        b"\x80\x02" + b"}" * 3_000_000 + b".",
        b"\x80\x02" + b"(" * 3_000_000 + b".",
        b"]" * 5000 + b"a" * 4999 + b".",
        b"]q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b".",
        b"\x80\x02]" + b"2" * 2_500_000 + b".",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"\x80\x04\x95" + b"\xff" * 8 + b"N" + b"2" * 100 + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
        b"I" + b"9" * 100_000 + b"\n.",
        b"L" + b"9" * 150 + b"L\n.",
        b"F" + b"1" * 500 + b"\n.",
        b"V" + b"a" * 100,
        b"g" + b"1" * 150 + b"\n.",
        pickle.dumps(np.zeros(1000), 4).replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"),
        pickle.dumps(np.zeros(1000), 4).replace(b"M\xe8\x03", b"J\xff\xff\xff\xff"),
    ],
)
def test_bombs_cost_little_and_end(data):
    tracemalloc.start()
    try:
        try:
            x = safe_load(data)
        except PickleFault:
            x = None
        assert tracemalloc.get_traced_memory()[1] < 250e6
    finally:
        tracemalloc.stop()
    assert x is None or isinstance(x, (list, type(None)))


def test_shared_values_are_counted_unfolded():
    x = [0]
    for _ in range(30):
        x = [x, x]
    with pytest.raises(UnsafePickle, match="bomb"):
        safe_load(pickle.dumps(x))
    a = np.zeros(1000)
    assert len(safe_load(pickle.dumps([a] * 1000))) == 1000  # one array, shared: no bomb


def test_a_chain_hidden_from_the_walk_is_still_too_deep():
    "Leaves first, so that each list is known when the one above is reached."
    chain = [[]]
    for _ in range(200):
        chain.append([chain[-1]])
    with pytest.raises(UnsafePickle, match="deep"):
        safe_load(pickle.dumps(chain))


def test_rings_of_every_kind():
    d, o = {}, np.empty(1, object)
    d["self"], o[0] = d, o
    l = []
    l.append((l,))
    for x in (d, l, o):
        with pytest.raises(UnsafePickle, match="contains itself"):
            safe_load(pickle.dumps(x))


# ---- honest files


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (
            a.shape == b.shape
            and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")
            and (
                all(map(same, a.ravel(), b.ravel())) if a.dtype == object else np.array_equal(a, b)
            )
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, (list, tuple)) else a == b


DTYPES = ["?", "i1", "u1", "<i2", ">i4", "u8", "f2", "<f4", ">f8", "c8", "c16", "S3", "U2"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_kind(dtype, protocol):
    rng = np.random.default_rng(0)
    for shape in ((), (0,), (3,), (2, 0), (2, 3, 4), (700, 3)):
        for order in "CF":
            x = np.asarray((rng.random(shape) * 99).astype(dtype), order=order)
            data = pickle.dumps({"x": x, "s": [str(v) for v in x.ravel()[:1]]}, protocol=protocol)
            assert same(safe_load(data), pickle.loads(data))


def test_numpy_one_names():
    x = np.arange(6.0).reshape(2, 3)
    for p in range(5):
        data = pickle.dumps([x, np.float32(2)], protocol=p)
        if p == 4:
            data = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        old = (
            data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            if p < 4
            else b"\x80\x04" + data[2 + 9 :]
        )
        assert b"numpy._core" not in old and same(safe_load(old), [x, np.float32(2)])


def test_peek_reads_a_trial_and_not_the_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(28, 32, 750))
    for name, data in {
        "py2": dump_python2(x),
        "p3": pickle.dumps(x, 3),
        "p5": pickle.dumps(x, 5),
    }.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(data)
        there = peek(path)
        assert (
            isinstance(there, unpickle.ArrayInFile)
            and there.shape == x.shape
            and np.array_equal(there[27], x[27])
            and np.array_equal(there.read(), x)
        )
        assert np.array_equal(there[27, 31], x[27, 31]) and there[1, 2, 3] == x[1, 2, 3]
        for i in (28, -1, (0, 32), (0, 0, 0, 0)):
            with pytest.raises(IndexError):
                there[i]
    for p in (0, 2):  # escaped text: must be read
        path.write_bytes(pickle.dumps(x, p))
        assert np.array_equal(peek(path), x)
    path.write_bytes(pickle.dumps({"a": np.asfortranarray(x), "b": x}, 4))
    assert isinstance(peek(path)["a"], np.ndarray) and np.array_equal(peek(path)["b"][1], x[1])


def test_a_file_that_shrinks_after_peek(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(dump_python2(np.zeros((4, 5000))))
    there = peek(path)
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(PickleFault, match="shorter"):
        there[3]
    with pytest.raises(PickleFault, match="truncated"):
        peek(path)


def test_text_of_python_2_is_latin_1():
    assert (
        safe_load(b"\x80\x02U\x04caf\xe9.") == "caf\xe9"
        and safe_load(b"S'caf\\xe9'\n.") == "caf\xe9"
        and safe_load(b"\x80\x02X\x05\x00\x00\x00caf\xc3\xa9.") == "caf\xe9"
    )
    big = safe_load(b"\x80\x02T" + struct.pack("<i", 5000) + b"\xe9" * 5000 + b".")
    assert big == "\xe9" * 5000


# ---- damage

HONEST = {
    "x": np.arange(2000.0).reshape(20, 100),
    "y": [np.arange(3, dtype="u1"), np.array(["a", "b"]), np.array([1, "k", None, (2,)], object)],
    3: ("t", b"b", 2.5, -1, None, np.float32(1)),
}


@pytest.mark.parametrize("protocol", range(6))
def test_every_truncation_is_told(protocol):
    data = pickle.dumps(HONEST, protocol=protocol)
    for n in [*range(0, 200), *range(200, len(data), 97), len(data) - 1]:
        with pytest.raises(PickleFault):
            safe_load(data[:n])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_random_damage_raises_nothing_else(protocol):
    rng = np.random.default_rng(protocol)
    small = pickle.dumps(
        {k: v for k, v in HONEST.items() if k != "x"} | {"x": np.arange(3.0)}, protocol=protocol
    )
    refused = 0
    for _ in range(3000):
        data = bytearray(small)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        try:
            repr(safe_load(bytes(data)))
        except PickleFault:
            refused += 1
    assert refused > 300


def test_random_programs(monkeypatch):
    "Instructions in any order, with small arguments: refused or harmless."
    rng = np.random.default_rng(0)
    codes = [op.code.encode("latin1") for op in pickletools.opcodes]
    for _ in range(5000):
        data = (
            b"\x80\x04"
            + b"".join(
                codes[i] + bytes(rng.integers(0, 4, rng.integers(0, 3)).tolist())
                for i in rng.integers(0, len(codes), 12)
            )
            + b"."
        )
        try:
            safe_load(data)
        except PickleFault:
            pass


def test_foreign_files(tmp_path):
    for name, data in {
        "empty": b"",
        "page": b"<html></html>",
        "zip": b"PK\x03\x04" + bytes(50),
        "hdf": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "mat": b"MATLAB 5.0 MAT-file" + bytes(200),
        "text": b"1,2,3\n" * 20,
        "zeros": bytes(300),
    }.items():
        (tmp_path / name).write_bytes(data)
        for f in (safe_load, peek, load_npz):
            with pytest.raises(PickleFault) as e:
                f(tmp_path / name)
            assert name in str(e.value) and len(e.value.args) == 2
    for f in (safe_load, peek, load_npz):
        for path in (tmp_path, tmp_path / "none"):
            with pytest.raises(PickleFault, match="cannot be read"):
                f(path)


def test_two_pickles_in_one_file():
    with pytest.raises(PickleFault, match="bytes after its end"):
        safe_load(pickle.dumps(1) * 2)


# ---- npz


def test_npz_attacks(tmp_path):
    path = tmp_path / "a.npz"
    for value in (
        touch(0),
        touch(2),
        touch(4),
        np.array(Call(os.system, f"touch {MARK}"), object),
        np.array([[Call(os.system, f"touch {MARK}")]], object),
    ):
        np.savez(path, good=np.zeros(3), data=value)
        with pytest.raises(UnsafePickle) as e:
            load_npz(path)
        assert e.value.name.endswith(".system") and str(e.value).startswith(f"{path}[data]: ")


def npy(descr, shape, data=b"", fortran=False):
    head = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


@pytest.mark.parametrize(
    "entry",
    [
        npy("<f8", (10**12,), bytes(8)),
        npy("<f8", (-1,), b""),
        npy("<f8", (2.5,), b""),
        npy("<f8", "x", b""),
        npy("<V8", (1,), bytes(8)),
        npy([("a", "<f8")], (1,), bytes(8)),
        npy("<M8[D]", (1,), bytes(8)),
        npy("|S2000000000", (), b""),
        npy("<U999999999", (), b""),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
        b"\x93NUMPY\x01\x00\x08\x00" + b"[" * 8,
        b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').system('touch x')"[:32],
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000,
        b"not numpy",
        b"",
        npy("|O", (2,), pickle.dumps([1])),
    ],
)
def test_npy_headers_that_lie(tmp_path, entry):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as z:
        z.writestr("data.npy", entry)
    if entry.endswith(pickle.dumps([1])):
        assert load_npz(tmp_path / "a.npz") == {"data": [1]}
    else:
        with pytest.raises(PickleFault):
            load_npz(tmp_path / "a.npz")


def test_npz_damage(tmp_path):
    np.savez(tmp_path / "a.npz", data=pickle.dumps(HONEST), x=np.arange(900.0))
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for n in rng.integers(0, len(whole), 60):
        (tmp_path / "b.npz").write_bytes(whole[:n])
        with pytest.raises(PickleFault):
            load_npz(tmp_path / "b.npz")
    told = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "b.npz").write_bytes(data)
        try:
            load_npz(tmp_path / "b.npz")
        except PickleFault:
            told += 1
    assert told > 250  # the checksum of the zip finds nearly all


def test_zip_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("data.npy", npy("|u1", (2**28,), bytes(2**28)))
    assert (tmp_path / "a.npz").stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(UnsafePickle, match="zip bomb"):
            load_npz(tmp_path / "a.npz", max_bytes=2**27)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


# ---- python 2


def test_dump_python2_is_read_by_pickle_and_by_us():
    rng = np.random.default_rng(0)
    for x in (
        rng.normal(size=(28, 32, 30, 5)),
        rng.normal(size=(3, 300)).astype(">f4"),
        np.arange(3, dtype="i1"),
        np.zeros((2, 3, 4, 5, 1), bool),
        np.float32(3),
    ):
        data = dump_python2(x)
        assert (
            data[:2] == b"\x80\x02"
            and np.array_equal(pickle.loads(data, encoding="latin1"), x)
            and np.array_equal(safe_load(data), x)
        )
    for bad in (np.array(["a"]), np.array([1j]), np.array([None])):
        with pytest.raises(ValueError):
            dump_python2(bad)


def test_nothing_here_unpickles():
    "The module never calls pickle."
    text = Path(unpickle.__file__).read_text()
    assert (
        "import pickle\n" not in text
        and "pickle.load" not in text.replace("np.load", "")
        and "allow_pickle" not in text
        and "eval(" not in text.replace("literal_eval(", "")
    )
