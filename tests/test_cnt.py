"""Neuroscan recordings: what MNE reads back, which width is decided, and what is refused."""

import struct
from datetime import datetime

import mne
import numpy as np
import pytest

from emo_lib.base.montage import CHANNELS
from emo_lib.data.cnt import (
    ELECTRODE,
    FIELDS,
    HEADER,
    UV_PER_BIT,
    _get,
    _put,
    bounds_from_annotations,
    open_cnt,
    pick_channels,
    read_cnt_header,
    write_cnt,
)
from emo_lib.data.layout import FileFault

NAMES = {
    66: [*CHANNELS, "M1", "M2", "VEO", "HEO"],
    67: [*CHANNELS, "M1", "M2", "ECG", "HEO", "VEO"],
}
EVENTS = [(0.5, "1"), (1.25, "KeyPad Response 3"), (2.0, "2"), (2.5, "Keyboard Response 7")]


def pink(n_channels, n=6000, sigma=20.0, common=0.7, seed=0):
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((n_channels + 1, n))) / np.sqrt(
        np.maximum(np.arange(n // 2 + 1), 3)
    )
    x = np.fft.irfft(spectrum, n)
    x = x[:-1] + common * x[-1]
    return sigma * x / x.std()


def mains(n, n_samples=6000):
    return pink(n, n_samples, 5) + 50 * np.sin(2 * np.pi * 50 * np.arange(n_samples) / 1000)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "a.cnt"
    write_cnt(path, pink(66), NAMES[66], 1000, EVENTS, 32)
    return path


@pytest.mark.parametrize("n_bits", [16, 32])
@pytest.mark.parametrize("n_channels", [66, 67, 3])
def test_mne_reads_back_to_half_a_step(tmp_path, n_bits, n_channels):
    x, names = pink(n_channels), NAMES.get(n_channels, ["Fz", "Cz", "Pz"])
    steps = np.linspace(0.5, 1.5, n_channels) * UV_PER_BIT[n_bits]
    n = write_cnt(
        tmp_path / "a.cnt",
        (x[:, i : i + 999] for i in range(0, 6000, 999)),
        names,
        1000,
        EVENTS,
        n_bits,
        steps,
        start=datetime(2014, 4, 4, 10, 30, 5),
        bads=names[1:2],
    )
    raw = mne.io.read_raw_cnt(
        tmp_path / "a.cnt", data_format=f"int{n_bits}", header="new", verbose="ERROR"
    )
    assert n == raw.n_times == 6000 and raw.ch_names == names and raw.info["bads"] == names[1:2]
    assert (np.abs(1e6 * raw.get_data() - x) <= steps[:, None] / 2 * (1 + 1e-6)).all()
    assert list(zip(raw.annotations.onset, raw.annotations.description)) == EVENTS
    h = read_cnt_header(tmp_path / "a.cnt")
    assert (h.n_bytes, h.start, h.bads, h.annotations) == (
        n_bits // 8,
        datetime(2014, 4, 4, 10, 30, 5),
        tuple(names[1:2]),
        tuple(EVENTS),
    )
    assert h.synthetic and h.seconds == 6 and np.allclose(h.uv_per_bit, steps)
    assert np.array_equal(open_cnt(tmp_path / "a.cnt").get_data(), raw.get_data())


@pytest.mark.parametrize("n_bits", [16, 32])
@pytest.mark.parametrize("n_channels", [66, 67])
@pytest.mark.parametrize(
    "make",
    [
        pink,
        mains,
        lambda n: pink(n, common=20),
        lambda n: pink(n, sigma=3),
        lambda n: pink(n) + np.linspace(-3000, 3000, n)[:, None],
        lambda n: pink(n) * (np.arange(n) % 4 > 0)[:, None],
    ],
    ids=["plain", "mains", "common", "small", "offsets", "every fourth flat"],
)
def test_width_is_decided_from_the_data(tmp_path, make, n_channels, n_bits):
    write_cnt(tmp_path / "a.cnt", make(n_channels), NAMES[n_channels], 1000, n_bits=n_bits)
    h = read_cnt_header(tmp_path / "a.cnt")
    assert (
        h.n_bytes == n_bits // 8
        and "2 bytes: amplitude" in h.n_bytes_why
        and "4 bytes: amplitude" in h.n_bytes_why
    )
    assert read_cnt_header(tmp_path / "a.cnt", n_samples="event table").n_bytes == n_bits // 8


@pytest.mark.parametrize(
    "x",
    [10 * np.random.default_rng(0).standard_normal((66, 6000)), np.zeros((66, 6000))],
    ids=["white", "zero"],
)
def test_undecided_width_is_refused_and_can_be_given(tmp_path, x):
    write_cnt(tmp_path / "a.cnt", x, NAMES[66], 1000)
    with pytest.raises(FileFault, match="neither width.*n_bytes=2"):
        read_cnt_header(tmp_path / "a.cnt")
    with pytest.raises(FileFault, match="neither width"):
        open_cnt(tmp_path / "a.cnt")
    assert open_cnt(tmp_path / "a.cnt", n_bytes=4).n_times == 6000
    with pytest.raises(FileFault, match="needs numbers of 4"):
        read_cnt_header(tmp_path / "a.cnt", n_bytes=2)
    with pytest.raises(ValueError, match="n_bytes"):
        read_cnt_header(tmp_path / "a.cnt", n_bytes=3)


def patch(path, **values):
    raw = bytearray(path.read_bytes())
    _put(raw, FIELDS, **values)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "values, text",
    [
        (dict(n_samples=0), "sample count 0"),
        (dict(n_samples=-5), "sample count -5"),
        (dict(n_samples=5999), "sample count 5999"),
        (dict(n_samples=12_000), "data of 4 bytes"),
        (dict(table=0), "unfinished"),
        (dict(table=2**31), "truncated|sample count"),
        (dict(n_channels=0), "damaged header"),
        (dict(n_channels=65), "sample count"),
        (dict(rate=0), "damaged header"),
        (dict(rev="RIFF"), "ANT recording of version 3"),
        (dict(rev="RF64"), "64 bits"),
        (dict(rev="EEP V2.0"), "version 2"),
        (dict(rev="Version 4.0"), "no Neuroscan"),
        (dict(rev="BIOSEMI"), "no Neuroscan"),
    ],
)
def test_contradictory_headers_are_refused(good, values, text):
    patch(good, **values)
    with pytest.raises(FileFault, match=text) as e:
        read_cnt_header(good)
    assert len(e.value.args) == 2
    with pytest.raises(FileFault, match=text):
        open_cnt(good)


@pytest.mark.parametrize("keep", [0, 5, 899, 900, 3000, 20_000, 1_000_000, -77, -76, -1])
def test_cut_files_are_refused(good, keep):
    good.write_bytes(good.read_bytes()[:keep])
    with pytest.raises(FileFault, match="empty|truncated|no Neuroscan"):
        read_cnt_header(good)


def test_missing_files_and_bad_tables_are_refused(good, tmp_path):
    with pytest.raises(FileFault, match="cannot be read"):
        read_cnt_header(tmp_path / "none.cnt")
    table = _get(good.read_bytes(), FIELDS)["table"]
    raw = bytearray(good.read_bytes())
    raw[table] = 7
    good.write_bytes(raw)
    with pytest.raises(FileFault, match="no event table"):
        read_cnt_header(good)


@pytest.mark.parametrize("n_samples", [0, 5000, 12_000])
def test_the_event_table_can_be_trusted_instead(good, n_samples):
    whole = open_cnt(good).get_data()
    patch(good, n_samples=n_samples)
    raw = open_cnt(good, n_samples="event table")
    assert np.array_equal(raw.get_data(), whole) and len(raw.annotations) == 4
    with pytest.raises(ValueError, match="n_samples"):
        read_cnt_header(good, n_samples=17)


@pytest.mark.parametrize("kind, form, size", [(1, "<HBBI", 8), (3, "<HBBI11x", 19)])
def test_other_event_tables(good, kind, form, size):
    raw = bytearray(good.read_bytes())
    table, at, frame = _get(raw, FIELDS)["table"], HEADER + 66 * ELECTRODE, 66 * 4
    where = [s if kind == 3 else at + (s + 1) * frame for s in (500, 2000, 2200, 2400)]
    entries = [
        struct.pack(form, *e) for e in zip((1, 2, 0, 9), (0, 0, 0, 0), (0, 0, 0xC0, 0xD0), where)
    ]
    good.write_bytes(raw[:table] + struct.pack("<BII", kind, size * 4, 0) + b"".join(entries))
    assert read_cnt_header(good).annotations == (
        (0.5, "1"),
        (2.0, "2"),
        (2.2, "reject"),
        (2.4, "accept"),
    )


def test_samples_in_blocks_are_read_as_by_mne(good):
    x, raw = pink(66), bytearray(good.read_bytes())
    at, table = HEADER + 66 * ELECTRODE, _get(raw, FIELDS)["table"]
    q = np.frombuffer(bytes(raw[at:table]), "<i4").reshape(
        -1, 20, 66
    )  # 20 samples of a channel together
    raw[at:table] = q.swapaxes(1, 2).tobytes()
    _put(raw, FIELDS, block=80)
    good.write_bytes(raw)
    h = read_cnt_header(good)
    assert h.block == 20 and h.n_bytes == 4
    assert (
        np.abs(1e6 * open_cnt(good).get_data(start=1000, stop=2000) - x[:, 1000:2000]).max() < 0.016
    )
    _put(raw, FIELDS, block=28)
    good.write_bytes(raw)
    with pytest.raises(FileFault, match="blocks of 7"):
        read_cnt_header(good)


def test_positions_beyond_two_gigabytes(tmp_path):
    n = 2_200_000_000 // (66 * 4)
    frame, at = 66 * 4, HEADER + 66 * ELECTRODE
    write_cnt(tmp_path / "a.cnt", np.zeros((66, 10)), NAMES[66], 1000)
    patch(tmp_path / "a.cnt", n_samples=n, table=at + n * frame)
    with open(tmp_path / "a.cnt", "r+b") as f:  # a hole in the file takes no disk
        f.seek(at + n * frame)
        f.write(struct.pack("<BIIHBBI", 1, 8, 0, 5, 0, 0, at + n * frame))
    h = read_cnt_header(tmp_path / "a.cnt", n_bytes=4)
    assert h.n_samples == n and h.annotations == (((n - 1) / 1000, "5"),)
    assert open_cnt(tmp_path / "a.cnt", n_bytes=4).n_times == n


@pytest.mark.parametrize(
    "change, text",
    [
        (dict(data=np.full((66, 10), np.nan)), "NaN"),
        (dict(data=np.full((66, 10), 4000.0), n_bits=16), "16 bits.*raise uv_per_bit"),
        (dict(n_bits=24), "16 or 32"),
        (dict(sfreq=0.5), "whole Hz"),
        (dict(channels=["toolongname"] * 66), "1 to 9 letters"),
        (dict(annotations=[(1.0, "happy")]), "'1' to '65535'"),
        (dict(annotations=[(99.0, "1")]), "within"),
        (dict(annotations=[(0.0, "0")]), "'1' to"),
    ],
)
def test_writer_refuses_and_leaves_nothing(tmp_path, change, text):
    with pytest.raises(ValueError, match=text):
        write_cnt(
            **dict(path=tmp_path / "a.cnt", data=pink(66, 2000), channels=NAMES[66], sfreq=1000)
            | change
        )
    assert list(tmp_path.iterdir()) == []


def test_channels_in_another_order_and_case(tmp_path):
    order = np.random.default_rng(1).permutation(66)
    names = [n.title() for n in NAMES[66]]
    write_cnt(tmp_path / "a.cnt", pink(66)[order], [names[i] for i in order], 1000)
    raw = open_cnt(tmp_path / "a.cnt", eog=("VEO", "HEO"), misc=("M1", "M2"))
    picked = pick_channels(raw.ch_names, CHANNELS)
    assert picked == names[:62] and np.abs(1e6 * raw.get_data(picked) - pink(66)[:62]).max() < 0.016
    with pytest.raises(FileFault, match="without ECG"):
        open_cnt(tmp_path / "a.cnt", misc=("ECG",))
    with pytest.raises(FileFault, match="twice: FZ"):
        pick_channels(["Fz", "FZ"], ["FZ"])


TRIALS = [(10.0, "1"), (20.0, "2"), (30.0, "1"), (40.0, "2"), (50.0, "1"), (60.0, "2")]


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda e: e[:5], "start at 50 s, no end after it"),
        (lambda e: e[1:], "end at 20 s, no start"),
        (lambda e: e[:2] + e[3:], "end at 40 s after the end at 20 s"),
        (lambda e: e + [(30.5, "1")], "start at 30.5 s after the start at 30 s"),
        (lambda e: e[:4], "2 whole trials of 3"),
        (lambda e: [], "0 whole trials"),
    ],
)
def test_missing_and_doubled_triggers_are_named(change, text):
    with pytest.raises(FileFault, match=text):
        bounds_from_annotations(change(list(TRIALS)), 3)


def test_bounds():
    keys = [
        (15.0, "KeyPad Response 1"),
        (35.0, "Keyboard Response 2"),
        (0.0, "reject"),
        (70.0, "9"),
    ]
    assert bounds_from_annotations(TRIALS[::-1] + keys, 3) == (
        (10.0, 20.0),
        (30.0, 40.0),
        (50.0, 60.0),
    )
    assert bounds_from_annotations(mne.Annotations([1.0, 2.0], 0, ["7", "8"]), 1, "7", "8") == (
        (1.0, 2.0),
    )
