"""Neuroscan recordings: what MNE reads back, which width is decided, and what is refused."""

import struct
from datetime import datetime

import mne
import numpy as np
import pytest

from emo_lib.base.montage import CHANNELS
from emo_lib.data.cnt import (
    HEADER,
    UV_PER_BIT,
    bounds_from_annotations,
    first_data_byte,
    open_cnt,
    pick_channels,
    read_cnt_header,
    unpack_records,
    write_cnt,
)
from emo_lib.data.layout import FileFault

NAMES = {
    66: [*CHANNELS, "M1", "M2", "VEO", "HEO"],
    67: [*CHANNELS, "M1", "M2", "ECG", "HEO", "VEO"],
}
EVENTS = [(0.5, "1"), (1.25, "KeyPad Response 3"), (2.0, "2"), (2.5, "Keyboard Response 7")]


def pink(n_channels, n=6000, sigma=20.0, common=0.7, seed=0):
    "Noise (channel, time) of 1/f power, with a part that is common to all channels."
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((n_channels + 1, n)))
    x = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(n // 2 + 1), 3)), n)
    x = x[:-1] + common * x[-1]
    return sigma * x / x.std()


def mains(n_channels):
    return pink(n_channels, sigma=5) + 50 * np.sin(2 * np.pi * 50 * np.arange(6000) / 1000)


def common(n_channels):
    return pink(n_channels, common=20)


def small(n_channels):
    return pink(n_channels, sigma=3)


def offsets(n_channels):
    return pink(n_channels) + np.linspace(-3000, 3000, n_channels)[:, None]


def every_fourth_flat(n_channels):
    return pink(n_channels) * (np.arange(n_channels) % 4 > 0)[:, None]


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "a.cnt"
    write_cnt(path, pink(66), NAMES[66], 1000, EVENTS, 32)
    return path


def header_of(raw):
    return unpack_records(raw, HEADER)[0]


def with_fields(raw, **values):
    "A copy of the bytes `raw` with other values in the header."
    raw = bytearray(raw)
    header = np.frombuffer(raw, HEADER, 1)
    for name, value in values.items():
        header[name] = value
    return raw


def patch(path, **values):
    path.write_bytes(with_fields(path.read_bytes(), **values))


# ---- writing and reading


@pytest.mark.parametrize("n_bits", [16, 32])
@pytest.mark.parametrize("n_channels", [66, 67, 3])
def test_mne_reads_back_to_half_a_step(tmp_path, n_bits, n_channels):
    path = tmp_path / "a.cnt"
    x, names = pink(n_channels), NAMES.get(n_channels, ["Fz", "Cz", "Pz"])
    blocks = (x[:, i : i + 999] for i in range(0, 6000, 999))
    steps = np.linspace(0.5, 1.5, n_channels) * UV_PER_BIT[n_bits]
    start = datetime(2014, 4, 4, 10, 30, 5)
    n = write_cnt(path, blocks, names, 1000, EVENTS, n_bits, steps, start=start, bads=names[1:2])
    raw = mne.io.read_raw_cnt(path, data_format=f"int{n_bits}", header="new", verbose="ERROR")
    assert n == 6000
    assert raw.n_times == 6000
    assert raw.ch_names == names
    assert raw.info["bads"] == names[1:2]
    assert (np.abs(1e6 * raw.get_data() - x) <= steps[:, None] / 2 * (1 + 1e-6)).all()
    assert list(zip(raw.annotations.onset, raw.annotations.description)) == EVENTS
    header = read_cnt_header(path)
    assert header.n_bytes == n_bits // 8
    assert header.start == start
    assert header.bads == tuple(names[1:2])
    assert header.annotations == tuple(EVENTS)
    assert header.synthetic
    assert header.seconds == 6
    assert np.allclose(header.uv_per_bit, steps)
    assert np.array_equal(open_cnt(path).get_data(), raw.get_data())


@pytest.mark.parametrize("n_bits", [16, 32])
@pytest.mark.parametrize("n_channels", [66, 67])
@pytest.mark.parametrize("make", [pink, mains, common, small, offsets, every_fourth_flat])
def test_width_is_decided_from_the_data(tmp_path, make, n_channels, n_bits):
    path = tmp_path / "a.cnt"
    write_cnt(path, make(n_channels), NAMES[n_channels], 1000, n_bits=n_bits)
    header = read_cnt_header(path)
    assert header.n_bytes == n_bits // 8
    assert "2 bytes: amplitude" in header.n_bytes_why
    assert "4 bytes: amplitude" in header.n_bytes_why
    assert read_cnt_header(path, n_samples="event table").n_bytes == n_bits // 8


@pytest.mark.parametrize("sigma", [10, 0], ids=["white", "zero"])
def test_undecided_width_is_refused_and_can_be_given(tmp_path, sigma):
    path = tmp_path / "a.cnt"
    white = np.random.default_rng(0).standard_normal((66, 6000))
    write_cnt(path, sigma * white, NAMES[66], 1000)
    with pytest.raises(FileFault, match="neither width.*n_bytes=2"):
        read_cnt_header(path)
    with pytest.raises(FileFault, match="neither width"):
        open_cnt(path)
    assert open_cnt(path, n_bytes=4).n_times == 6000
    with pytest.raises(FileFault, match="needs numbers of 4"):
        read_cnt_header(path, n_bytes=2)
    with pytest.raises(ValueError, match="n_bytes"):
        read_cnt_header(path, n_bytes=3)


# ---- damaged files


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
    for read in (read_cnt_header, open_cnt):
        with pytest.raises(FileFault, match=text) as caught:
            read(good)
        assert len(caught.value.args) == 2


@pytest.mark.parametrize("keep", [0, 5, 899, 900, 3000, 20_000, 1_000_000, -77, -76, -1])
def test_cut_files_are_refused(good, keep):
    good.write_bytes(good.read_bytes()[:keep])
    with pytest.raises(FileFault, match="empty|truncated|no Neuroscan"):
        read_cnt_header(good)


def test_missing_files_and_bad_tables_are_refused(good, tmp_path):
    with pytest.raises(FileFault, match="cannot be read"):
        read_cnt_header(tmp_path / "none.cnt")
    raw = bytearray(good.read_bytes())
    raw[header_of(raw)["table"]] = 7
    good.write_bytes(raw)
    with pytest.raises(FileFault, match="no event table"):
        read_cnt_header(good)


@pytest.mark.parametrize("n_samples", [0, 5000, 12_000])
def test_the_event_table_can_be_trusted_instead(good, n_samples):
    whole = open_cnt(good).get_data()
    patch(good, n_samples=n_samples)
    raw = open_cnt(good, n_samples="event table")
    assert np.array_equal(raw.get_data(), whole)
    assert len(raw.annotations) == 4
    with pytest.raises(ValueError, match="n_samples"):
        read_cnt_header(good, n_samples=17)


@pytest.mark.parametrize("type_, form, size", [(1, "<HBBI", 8), (3, "<HBBI11x", 19)])
def test_other_event_tables(good, type_, form, size):
    raw = good.read_bytes()
    samples = (500, 2000, 2200, 2400)
    first, frame = first_data_byte(66), 66 * 4
    positions = samples if type_ == 3 else [first + (sample + 1) * frame for sample in samples]
    codes, pads = (1, 2, 0, 9), (0, 0, 0xC0, 0xD0)
    entries = [struct.pack(form, *entry) for entry in zip(codes, (0, 0, 0, 0), pads, positions)]
    table = struct.pack("<BII", type_, size * 4, 0) + b"".join(entries)
    good.write_bytes(raw[: header_of(raw)["table"]] + table)
    expected = ((0.5, "1"), (2.0, "2"), (2.2, "reject"), (2.4, "accept"))
    assert read_cnt_header(good).annotations == expected


def test_samples_in_blocks_are_read_as_by_mne(good):
    raw = bytearray(good.read_bytes())
    first, table = first_data_byte(66), header_of(raw)["table"]
    q = np.frombuffer(bytes(raw[first:table]), "<i4").reshape(-1, 20, 66)
    raw[first:table] = q.swapaxes(1, 2).tobytes()  # 20 samples of a channel together
    good.write_bytes(with_fields(raw, block=80))
    header = read_cnt_header(good)
    assert header.block == 20
    assert header.n_bytes == 4
    x = 1e6 * open_cnt(good).get_data(start=1000, stop=2000)
    assert np.abs(x - pink(66)[:, 1000:2000]).max() < 0.016
    good.write_bytes(with_fields(raw, block=28))
    with pytest.raises(FileFault, match="blocks of 7"):
        read_cnt_header(good)


def test_positions_beyond_two_gigabytes(tmp_path):
    path, frame = tmp_path / "a.cnt", 66 * 4
    n = 2_200_000_000 // frame
    write_cnt(path, np.zeros((66, 10)), NAMES[66], 1000)
    table = first_data_byte(66) + n * frame
    patch(path, n_samples=n, table=table)
    with open(path, "r+b") as file:  # a hole in the file takes no disk space
        file.seek(table)
        file.write(struct.pack("<BIIHBBI", 1, 8, 0, 5, 0, 0, table))
    header = read_cnt_header(path, n_bytes=4)
    assert header.n_samples == n
    assert header.annotations == (((n - 1) / 1000, "5"),)
    assert open_cnt(path, n_bytes=4).n_times == n


# ---- the writer's refusals


@pytest.mark.parametrize(
    "change, text",
    [
        (dict(data=np.full((66, 10), np.nan)), "NaN"),
        (dict(data=np.full((66, 10), 4000.0), n_bits=16), "16 bits.*raise uv_per_bit"),
        (dict(n_bits=24), "16 or 32"),
        (dict(sfreq=0.5), "whole Hz"),
        (dict(channels=["toolongname"] * 66), "1 to 9 letters"),
        (dict(annotations=[(1.0, "happy")]), "'1' to '65535'"),
        (dict(annotations=[(1.0, "KeyPad Response 16")]), "'1' to '65535'"),
        (dict(annotations=[(1.0, "KeyPad Response x")]), "'1' to '65535'"),
        (dict(annotations=[(99.0, "1")]), "within"),
        (dict(annotations=[(0.0, "0")]), "'1' to"),
    ],
)
def test_writer_refuses_and_leaves_nothing(tmp_path, change, text):
    arguments = dict(path=tmp_path / "a.cnt", data=pink(66, 2000), channels=NAMES[66], sfreq=1000)
    with pytest.raises(ValueError, match=text):
        write_cnt(**arguments | change)
    assert list(tmp_path.iterdir()) == []


# ---- channels and trials


def test_channels_in_another_order_and_case(tmp_path):
    path = tmp_path / "a.cnt"
    order = np.random.default_rng(1).permutation(66)
    names = [name.title() for name in NAMES[66]]
    write_cnt(path, pink(66)[order], [names[i] for i in order], 1000)
    raw = open_cnt(path, eog=("VEO", "HEO"), misc=("M1", "M2"))
    picked = pick_channels(raw.ch_names, CHANNELS)
    assert picked == names[:62]
    assert np.abs(1e6 * raw.get_data(picked) - pink(66)[:62]).max() < 0.016
    with pytest.raises(FileFault, match="without ECG"):
        open_cnt(path, misc=("ECG",))
    with pytest.raises(FileFault, match="twice: FZ"):
        pick_channels(["Fz", "FZ"], ["FZ"])


TRIALS = [(10.0, "1"), (20.0, "2"), (30.0, "1"), (40.0, "2"), (50.0, "1"), (60.0, "2")]


@pytest.mark.parametrize(
    "events, text",
    [
        (TRIALS[:5], "start at 50 s, no end after it"),
        (TRIALS[1:], "end at 20 s, no start"),
        (TRIALS[:2] + TRIALS[3:], "end at 40 s after the end at 20 s"),
        ([*TRIALS, (30.5, "1")], "start at 30.5 s after the start at 30 s"),
        (TRIALS[:4], "2 whole trials of 3"),
        ([], "0 whole trials"),
    ],
)
def test_missing_and_doubled_triggers_are_named(events, text):
    with pytest.raises(FileFault, match=text):
        bounds_from_annotations(events, 3)


def test_bounds_ignore_order_and_keys():
    keys = [
        (15.0, "KeyPad Response 1"),
        (35.0, "Keyboard Response 2"),
        (0.0, "reject"),
        (70.0, "9"),
    ]
    expected = ((10.0, 20.0), (30.0, 40.0), (50.0, 60.0))
    assert bounds_from_annotations(TRIALS[::-1] + keys, 3) == expected


def test_bounds_of_other_codes():
    assert bounds_from_annotations([(1.0, "7"), (2.0, "8")], 1, "7", "8") == ((1.0, 2.0),)
