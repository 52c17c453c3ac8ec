"""Safe unpickling: valid files are read as by pickle; all else is refused before it runs."""

import collections
import contextlib
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

from emo_lib.data import unpickle
from emo_lib.data.unpickle import (
    CONTENT,
    METHODS,
    PickleFault,
    UnsafePickle,
    dump_python2,
    load_npz,
    peek,
    safe_load,
)

MARK = "it_ran"


class Call:
    "Is pickled as a call of a function."

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        call = (self.function, self.args)
        return call if self.state is None else (*call, self.state)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(MARK).exists(), "a pickle ran"


def touch():
    return Call(os.system, f"touch {MARK}")


@contextlib.contextmanager
def memory_below(limit):
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


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
def test_a_command_is_refused_wherever_it_is(protocol, wrap):
    with pytest.raises(UnsafePickle) as caught:
        safe_load(pickle.dumps(wrap(touch()), protocol=protocol))
    assert caught.value.name == f"{os.system.__module__}.system"
    assert caught.value.name in str(caught.value)


@pytest.mark.parametrize(
    "value, name",
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
def test_other_things_are_refused_by_name(value, name):
    with pytest.raises(UnsafePickle) as caught:
        safe_load(pickle.dumps(value))
    assert name in str(caught.value)


# the state of a dtype with a field named x
FIELDS = b"(K\x03U\x01<U\x01xNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb."


@pytest.mark.parametrize(
    "data, name",
    [
        (b"cos\nsystem\n(S'touch it_ran'\ntR.", "os.system"),
        (b"(S'touch it_ran'\nios\nsystem\n.", "os.system"),
        (b"(S'touch it_ran'\ninumpy\nndarray\n.", "an instance of numpy.ndarray"),
        (b"(cos\nsystem\nS'touch it_ran'\no.", "os.system"),
        (b"(cnumpy\nndarray\nK\x01o.", "OBJ"),
        (b"\x80\x02\x82\x01.", "extension 1"),
        (b"\x80\x02\x83\x01\x02.", "extension"),
        (b"\x80\x02\x84\x01\x02\x03\x04.", "extension"),
        (b"\x80\x02Pany\n.", "outside object"),
        (b"\x80\x04\x8c\x02idQ.", "outside object"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x04\x8c\x02os\x94K\x01\x93.", "no text"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f8\x85\x81.", "NEWOBJ numpy.dtype"),
        (b"\x80\x02]}b.", "new state for a list"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R" + FIELDS, "fields"),
        (b"c_codecs\nencode\n(U\x01aU\x03hextR.", "_codecs.encode with hex"),
        (b"c_codecs\nencode\nK\x01\x85R.", "_codecs.encode"),
        (b"c_codecs\nencode\nK\x01U\x06latin1\x86R.", "_codecs.encode of int"),
        (b"cnumpy\ndtype\n(tR.", "numpy.dtype"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85U\x01btR.",
            "class numpy.dtype",
        ),
        (b"c\x1b[31mos\nsystem\n.", "\\x1b[31mos.system"),
        (b"co\xe9\nsystem\n.", "o\\\\xe9.system"),
        (
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02O8I0\nI1\ntRU\x01xtR.",
            "scalar of objects",
        ),
    ],
)
def test_hand_written_attacks(data, name):
    with pytest.raises(UnsafePickle) as caught:
        safe_load(data)
    assert name in str(caught.value)
    assert str(caught.value).isprintable()


ALLOWED = METHODS | CONTENT
NOT_ALLOWED = [
    op for op in pickletools.opcodes if ord(op.code) not in ALLOWED and op.name != "STOP"
]


@pytest.mark.parametrize("op", NOT_ALLOWED, ids=[op.name for op in NOT_ALLOWED])
def test_instructions_outside_the_allow_list_are_refused_by_name(op):
    with pytest.raises(UnsafePickle, match=op.name):
        safe_load(b"\x80\x05N(N" + op.code.encode("latin1") + bytes(8) + b".")


def test_the_attacks_are_real():
    "The standard library runs this one."
    try:
        pickle.loads(pickle.dumps(touch(), protocol=2))
        assert Path(MARK).exists()
    finally:
        Path(MARK).unlink()


def test_refusals_survive_a_worker_process():
    with pytest.raises(UnsafePickle) as caught:
        safe_load(pickle.dumps(touch(), protocol=2), "file.pkl")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.name == caught.value.name
    assert copy.where == "file.pkl"


# ---- bombs

LATIN1 = b"\x8c\x06latin1\x86R"
LONG_TEXT = b"\x80\x04\x8d" + struct.pack("<Q", 100_000) + b"x" * 100_000
SHAPE_1000 = pickle.dumps(np.zeros(1000), 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        LONG_TEXT + b"q\x00c_codecs\nencode\nq\x01(" + (b"h\x01h\x00" + LATIN1) * 1000 + b"l.",
        b"\x80\x02" + b"}" * 3_000_000 + b".",
        b"\x80\x02" + b"(" * 3_000_000 + b".",
        b"]" * 5000 + b"a" * 4999 + b".",
        b"]q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b".",
        b"\x80\x02]" + b"2" * 2_500_000 + b".",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"\x80\x04\x95" + b"\xff" * 8 + b"N" + b"2" * 100 + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"x.",
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
        b"I" + b"9" * 100_000 + b"\n.",
        b"L" + b"9" * 150 + b"L\n.",
        b"F" + b"1" * 500 + b"\n.",
        b"V" + b"a" * 100,
        b"g" + b"1" * 150 + b"\n.",
        SHAPE_1000.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"),
        SHAPE_1000.replace(b"M\xe8\x03", b"J\xff\xff\xff\xff"),
    ],
)
def test_bombs_cost_little_and_end(data):
    value = None
    with memory_below(250e6), contextlib.suppress(PickleFault):
        value = safe_load(data)
    assert value is None or isinstance(value, list)


@pytest.mark.parametrize("n", [10**6, 10**8])
def test_a_shape_or_length_that_lies_allocates_nothing(n):
    reconstruct = np.empty(0).__reduce__()[0]
    attacks = (
        pickle.dumps(Call(reconstruct, np.ndarray, (n,), b"d")),
        b"\x80\x02T" + struct.pack("<i", n) + b"x.",
        b"\x80\x04\x8e" + struct.pack("<Q", n) + b"x.",
        b"\x80\x05\x96" + struct.pack("<Q", n) + b"x.",
        b"\x80\x02\x8b" + struct.pack("<i", n) + b"x.",
        b"\x80\x02" + b"(" * 1000 + b".",
    )
    with memory_below(1e5):
        for data in attacks:
            with pytest.raises(PickleFault):
                safe_load(data)


def test_shared_values_are_counted_unfolded():
    x = [0]
    for _ in range(30):
        x = [x, x]
    with pytest.raises(UnsafePickle, match="bomb"):
        safe_load(pickle.dumps(x))


def test_a_shared_array_is_no_bomb():
    a = np.zeros(1000)
    assert len(safe_load(pickle.dumps([a] * 1000))) == 1000


def test_a_chain_hidden_from_the_walk_is_still_too_deep():
    "Leaves first, so that each list is known when the one above is reached."
    chain = [[]]
    for _ in range(200):
        chain.append([chain[-1]])
    with pytest.raises(UnsafePickle, match="deep"):
        safe_load(pickle.dumps(chain))


def test_rings_of_every_kind():
    in_dict, in_array, in_tuple = {}, np.empty(1, object), []
    in_dict["self"], in_array[0] = in_dict, in_array
    in_tuple.append((in_tuple,))
    for x in (in_dict, in_array, in_tuple):
        with pytest.raises(UnsafePickle, match="contains itself"):
            safe_load(pickle.dumps(x))


# ---- valid files


def same(a, b):
    "Equal in type, shape and value; byte orders may differ."
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if not isinstance(a, np.ndarray):
        return a == b
    if a.shape != b.shape or a.dtype.newbyteorder("=") != b.dtype.newbyteorder("="):
        return False
    return all(map(same, a.ravel(), b.ravel())) if a.dtype == object else np.array_equal(a, b)


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


@pytest.mark.parametrize("protocol", range(5))
def test_numpy_one_names(protocol):
    expected = [np.arange(6.0).reshape(2, 3), np.float32(2)]
    data = pickle.dumps(expected, protocol=protocol)
    if protocol == 4:
        data = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        data = b"\x80\x04" + data[2 + 9 :]  # without the frame, whose length changed
    else:
        data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy._core" not in data
    assert same(safe_load(data), expected)


X = np.random.default_rng(0).normal(size=(28, 32, 750))


@pytest.mark.parametrize("data", [dump_python2(X), pickle.dumps(X, 3), pickle.dumps(X, 5)])
def test_peek_reads_a_trial_and_not_the_file(data):
    Path("x.pkl").write_bytes(data)
    in_file = peek("x.pkl")
    assert isinstance(in_file, unpickle.ArrayInFile)
    assert in_file.shape == X.shape
    assert np.array_equal(in_file[27], X[27])
    assert np.array_equal(in_file[27, 31], X[27, 31])
    assert in_file[1, 2, 3] == X[1, 2, 3]
    assert np.array_equal(in_file.read(), X)
    for index in (28, -1, (0, 32), (0, 0, 0, 0)):
        with pytest.raises(IndexError):
            in_file[index]


@pytest.mark.parametrize("protocol", [0, 2])
def test_peek_reads_escaped_text(protocol):
    Path("x.pkl").write_bytes(pickle.dumps(X, protocol))
    assert np.array_equal(peek("x.pkl"), X)


def test_peek_reads_arrays_in_fortran_order():
    Path("x.pkl").write_bytes(pickle.dumps({"a": np.asfortranarray(X), "b": X}, 4))
    assert np.array_equal(peek("x.pkl")["a"], X)
    assert np.array_equal(peek("x.pkl")["b"][1], X[1])


def test_a_file_that_shrinks_after_peek():
    path = Path("a.pkl")
    path.write_bytes(dump_python2(np.zeros((4, 5000))))
    in_file = peek(path)
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(PickleFault, match="shorter"):
        in_file[3]
    with pytest.raises(PickleFault, match="truncated"):
        peek(path)


@pytest.mark.parametrize(
    "data",
    [b"\x80\x02U\x04caf\xe9.", b"S'caf\\xe9'\n.", b"\x80\x02X\x05\x00\x00\x00caf\xc3\xa9."],
)
def test_text_of_python_2_is_latin_1(data):
    assert safe_load(data) == "caf\xe9"


def test_long_text_of_python_2_is_latin_1():
    data = b"\x80\x02T" + struct.pack("<i", 5000) + b"\xe9" * 5000 + b"."
    assert safe_load(data) == "\xe9" * 5000


# ---- damage

VALID = {
    "x": np.arange(2000.0).reshape(20, 100),
    "y": [np.arange(3, dtype="u1"), np.array(["a", "b"]), np.array([1, "k", None, (2,)], object)],
    3: ("t", b"b", 2.5, -1, None, np.float32(1)),
}
CODES = [op.code.encode("latin1") for op in pickletools.opcodes]


@pytest.mark.parametrize("protocol", range(6))
def test_every_truncation_is_found(protocol):
    data = pickle.dumps(VALID, protocol=protocol)
    for n in [*range(0, 200), *range(200, len(data), 97), len(data) - 1]:
        with pytest.raises(PickleFault):
            safe_load(data[:n])


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_random_damage_raises_nothing_else(protocol):
    rng = np.random.default_rng(protocol)
    small = pickle.dumps(VALID | {"x": np.arange(3.0)}, protocol=protocol)
    n_refused = 0
    for _ in range(3000):
        data = bytearray(small)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            data[position] = rng.integers(256)
        try:
            repr(safe_load(bytes(data)))
        except PickleFault:
            n_refused += 1
    assert n_refused > 300


def test_random_programs():
    "Instructions in any order, with small arguments: refused or harmless."
    rng = np.random.default_rng(0)
    for _ in range(5000):
        data = b"\x80\x04"
        for i in rng.integers(0, len(CODES), 12):
            data += CODES[i] + bytes(rng.integers(0, 4, rng.integers(0, 3)).tolist())
        with contextlib.suppress(PickleFault):
            safe_load(data + b".")


@pytest.mark.parametrize("load", [safe_load, peek, load_npz])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html></html>",
        b"PK\x03\x04" + bytes(50),
        b"\x89HDF\r\n\x1a\n" + bytes(99),
        b"MATLAB 5.0 MAT-file" + bytes(200),
        b"1,2,3\n" * 20,
        bytes(300),
    ],
    ids=["empty", "page", "zip", "hdf", "mat", "text", "zeros"],
)
def test_foreign_files(load, content):
    Path("foreign").write_bytes(content)
    with pytest.raises(PickleFault) as caught:
        load("foreign")
    assert "foreign" in str(caught.value)
    assert len(caught.value.args) == 2


@pytest.mark.parametrize("load", [safe_load, peek, load_npz])
def test_folders_and_absent_files(load, tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(PickleFault, match="cannot be read"):
            load(path)


def test_two_pickles_in_one_file():
    with pytest.raises(PickleFault, match="bytes after its end"):
        safe_load(pickle.dumps(1) * 2)


# ---- npz


@pytest.mark.parametrize(
    "value",
    [
        pickle.dumps(touch(), protocol=0),
        pickle.dumps(touch(), protocol=2),
        pickle.dumps(touch(), protocol=4),
        np.array(touch(), object),
        np.array([[touch()]], object),
    ],
)
def test_npz_attacks(value):
    np.savez("a.npz", good=np.zeros(3), data=value)
    with pytest.raises(UnsafePickle) as caught:
        load_npz("a.npz")
    assert caught.value.name.endswith(".system")
    assert str(caught.value).startswith("a.npz[data]: ")


def npy(descr, shape, data=b"", fortran=False):
    header = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def write_entry(entry):
    with zipfile.ZipFile("a.npz", "w") as archive:
        archive.writestr("data.npy", entry)


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
        npy("(2,)<f8", (1,), bytes(16)),
        npy("|S2000000000", (), b""),
        npy("<U999999999", (), b""),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
        b"\x93NUMPY\x01\x00\x08\x00" + b"[" * 8,
        b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').system('touch x')"[:32],
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000,
        b"not numpy",
        b"",
    ],
)
def test_npy_headers_that_lie(entry):
    write_entry(entry)
    with pytest.raises(PickleFault):
        load_npz("a.npz")


def test_an_entry_of_objects_is_the_value_of_its_pickle():
    write_entry(npy("|O", (2,), pickle.dumps([1])))
    assert load_npz("a.npz") == {"data": [1]}


def test_npz_damage():
    np.savez("a.npz", data=pickle.dumps(VALID), x=np.arange(900.0))
    whole = Path("a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for n in rng.integers(0, len(whole), 60):
        Path("b.npz").write_bytes(whole[:n])
        with pytest.raises(PickleFault):
            load_npz("b.npz")
    n_refused = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        Path("b.npz").write_bytes(data)
        try:
            load_npz("b.npz")
        except PickleFault:
            n_refused += 1
    assert n_refused > 250  # the checksum of the zip finds nearly all


def test_zip_bomb():
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", npy("|u1", (2**28,), bytes(2**28)))
    assert Path("a.npz").stat().st_size < 2**20
    with memory_below(5e6), pytest.raises(UnsafePickle, match="zip bomb"):
        load_npz("a.npz", max_bytes=2**27)


# ---- python 2


@pytest.mark.parametrize(
    "x",
    [
        X[:, :, :150].reshape(28, 32, 30, 5),
        X[:3, 0, :300].astype(">f4"),
        np.arange(3, dtype="i1"),
        np.zeros((2, 3, 4, 5, 1), bool),
        np.float32(3),
    ],
)
def test_dump_python2_is_read_by_pickle_and_by_us(x):
    data = dump_python2(x)
    assert data[:2] == b"\x80\x02"
    assert np.array_equal(pickle.loads(data, encoding="latin1"), x)
    assert np.array_equal(safe_load(data), x)


@pytest.mark.parametrize("x", [np.array(["a"]), np.array([1j]), np.array([None])])
def test_dump_python2_refuses_other_kinds(x):
    with pytest.raises(ValueError):
        dump_python2(x)


@pytest.mark.parametrize(
    "words", ["import pickle\n", "pickle.load", "allow_pickle", "eval(", "super().load()"]
)
def test_the_module_never_runs_a_pickle(words):
    assert words not in Path(unpickle.__file__).read_text()
