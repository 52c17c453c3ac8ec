"""The training loop where a notebook would be tedious: kills, damaged files, all options."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from stubs import DEVICE
from torch import nn
from torch.nn import functional as F

from emo_lib import __version__
from emo_lib.training.estimator import NetworkClassifier
from emo_lib.training.inputs import as_samples
from emo_lib.training.loop import (
    PRECISIONS,
    Run,
    TrainingDiverged,
    TrainingOptions,
    best_epoch,
    is_over,
    pick_device,
    seeded,
    train,
    train_epoch,
)
from emo_lib.training.weights import fit_into, read_weights, save_weights, write_tensors

torch.set_num_threads(1)
rng = torch.Generator().manual_seed(0)
x = torch.randn(96, 6, generator=rng)
y = torch.sin(x.sum(1, keepdim=True)) + 0.1 * torch.randn(96, 1, generator=rng)


def new_net(dropout=0.2, seed=0):
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 1)
        )


def masked_loss(net, batch, generator):
    "As in pre-training: some inputs are hidden, drawn from the loop's generator."
    hidden = torch.rand(batch[0].shape, generator=generator) < 0.3
    return F.mse_loss(net(batch[0].masked_fill(hidden, 0)), batch[1])


def score(net):
    return -F.mse_loss(net(x), y)


def are_equal(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def start(net, loss=masked_loss, data=(x, y), checkpoint=None, val_fn=None, **options):
    "Train, with a checkpoint after every epoch where there is one."
    return train(
        net,
        loss,
        data,
        TrainingOptions(**options),
        val_fn=val_fn,
        checkpoint=checkpoint,
        checkpoint_s=0,
    )


class PowerCut(Exception):
    "Where a process would have been killed."


def raise_power_cut(*args, **kwargs):
    raise PowerCut


def cut_after(steps, loss=masked_loss):
    "`loss`, until it has been asked for `steps` times."
    left = iter(range(steps))

    def interrupted(*args):
        if next(left, None) is None:
            raise PowerCut
        return loss(*args)

    return interrupted


OPTIONS = {
    "sgd": {},
    "plain sgd": dict(momentum=0.0),
    "adamw": dict(optimizer="adamw", weight_decay=0.1),
    "validation": dict(val_fn=score),
    "patience": dict(val_fn=score, patience=3, lr=0.3),
    "bfloat16": dict(precision="bfloat16"),
    "clip": dict(clip=0.5),
    "everything": dict(
        optimizer="adamw", lr=0.1, val_fn=score, patience=2, precision="bfloat16", clip=1.0
    ),
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_cut_off_anywhere_it_ends_the_same(tmp_path, options, steps):
    options = dict(epochs=12, lr=0.05) | options
    checkpoint = tmp_path / "c.safetensors"
    uninterrupted = new_net()
    curve = start(uninterrupted, checkpoint=checkpoint, **options)
    with pytest.raises(PowerCut):
        start(new_net(), cut_after(steps), checkpoint=checkpoint, **options)
    torch.manual_seed(steps)  # what the next process has drawn before must not matter
    resumed = new_net()
    assert start(resumed, checkpoint=checkpoint, **options) == curve
    assert are_equal(resumed, uninterrupted)
    assert not list(tmp_path.iterdir())


def test_cut_off_twice_and_once_between_the_last_epoch_and_the_end(tmp_path, monkeypatch):
    options = dict(epochs=5, val_fn=score, patience=2, lr=0.3)
    checkpoint = tmp_path / "c.safetensors"
    uninterrupted = new_net()
    curve = start(uninterrupted, checkpoint=checkpoint, **options)
    for _ in range(2):
        with pytest.raises(PowerCut):
            start(new_net(), cut_after(4), checkpoint=checkpoint, **options)
    with monkeypatch.context() as m:
        m.setattr(Run, "restore_best", raise_power_cut)
        with pytest.raises(PowerCut):
            start(new_net(), checkpoint=checkpoint, **options)
    resumed = new_net()
    assert start(resumed, cut_after(0), checkpoint=checkpoint, **options) == curve  # no more steps
    assert are_equal(resumed, uninterrupted)


def train_like_pretraining(file, checkpoint, pause=0.0):
    "Train a small network for 30 epochs, `pause` seconds per batch, and save it with its curve."
    net = new_net()

    def slow_loss(*args):
        time.sleep(pause)
        return masked_loss(*args)

    curve = start(net, slow_loss, checkpoint=checkpoint, val_fn=score, epochs=30, optimizer="adamw")
    save_weights(file, net, {"history": curve})


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_training import train_like_pretraining
train_like_pretraining(*sys.argv[2:4], float(sys.argv[4]))
"""


@pytest.mark.slow
def test_a_killed_process_started_again_ends_at_the_same_weights(tmp_path):
    killed, checkpoint = tmp_path / "killed.safetensors", tmp_path / "checkpoint.safetensors"
    tests = Path(__file__).parent

    def run_process(pause):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tests, killed, checkpoint, str(pause)]
        )

    victim, deadline = run_process(0.05), time.monotonic() + 60  # 30 epochs would last 4.5 s
    try:
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)
    finally:
        victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not killed.exists()
    assert 1 <= len(read_weights(checkpoint)[1]["history"]) < 30
    assert run_process(0).wait(60) == 0
    assert not checkpoint.exists()
    train_like_pretraining(tmp_path / "uninterrupted.safetensors", None)
    expected, expected_info = read_weights(tmp_path / "uninterrupted.safetensors")
    found, found_info = read_weights(killed)
    assert all(torch.equal(v, found[k]) for k, v in expected.items())
    assert found_info == expected_info
    assert len(found_info["history"]) == 30


@pytest.fixture
def checkpoint(tmp_path):
    "The checkpoint of a training that was cut off in its third epoch."
    file = tmp_path / "c.safetensors"
    with pytest.raises(PowerCut):
        start(new_net(), cut_after(7), checkpoint=file, epochs=5)
    return file


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(lr=0.01), "lr: expected 0.01, found 0.001"),
        (dict(epochs=6), "epochs"),
        (dict(seed=1), "seed"),
        (dict(optimizer="adamw"), "optimizer"),
        (dict(batch_size=16), "batch_size"),
        (dict(momentum=0.5), "momentum"),
        (dict(weight_decay=0.1), "weight_decay"),
        (dict(clip=1.0), "clip"),
        (dict(precision="bfloat16"), "precision"),
        (dict(val_fn=score), "validated"),
        (dict(patience=2), "patience"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(checkpoint, change, words):
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match="another training") as e:
        start(new_net(), checkpoint=checkpoint, **dict(epochs=5) | change)
    assert words in str(e.value)
    assert str(checkpoint) in str(e.value)
    assert "delete it" in str(e.value)
    assert checkpoint.read_bytes() == before


def other_weights():
    return new_net(seed=1)


def other_shapes():
    net = new_net()
    net[4] = nn.Linear(16, 1, bias=False)
    return net


def frozen_layer():
    net = new_net()
    net[0].requires_grad_(False)
    return net


@pytest.mark.parametrize(
    "net, data, words",
    [
        (new_net, (torch.cat([x[:-1], x[-1:] + 1e-6]), y), "data"),
        (new_net, (x, y.flip(0)), "data"),
        (other_weights, (x, y), "untrained weights"),
        (other_shapes, (x, y), "untrained weights"),
        (frozen_layer, (x, y), "untrained weights"),
    ],
    ids=["data", "labels", "initial weights", "shapes", "frozen"],
)
def test_a_checkpoint_of_other_data_or_another_network_is_refused(checkpoint, net, data, words):
    with pytest.raises(ValueError, match=words):
        start(net(), data=data, checkpoint=checkpoint, epochs=5)


def test_a_damaged_or_foreign_checkpoint_is_named(checkpoint):
    intact = checkpoint.read_bytes()
    for broken in (intact[:-100], intact[:20], b"", b"not weights at all"):
        checkpoint.write_bytes(broken)
        with pytest.raises(ValueError, match="c.safetensors.*delete it"):
            start(new_net(), checkpoint=checkpoint, epochs=5)
    save_weights(checkpoint, new_net(), {"what": "a network"})
    with pytest.raises(ValueError, match="another training"):
        start(new_net(), checkpoint=checkpoint, epochs=5)
    checkpoint.write_bytes(intact)
    assert len(start(new_net(), checkpoint=checkpoint, epochs=5)) == 5


@pytest.mark.parametrize("info", [[], 5, {"identity": 5}, {"identity": {}}])
def test_a_file_of_another_kind_is_no_checkpoint(tmp_path, info):
    write_tensors(tmp_path / "c.safetensors", {"a": torch.zeros(1)}, info)
    with pytest.raises(ValueError, match="c.safetensors"):
        start(new_net(), checkpoint=tmp_path / "c.safetensors", epochs=1)


def test_a_short_training_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("emo_lib.training.checkpoints.write_tensors", raise_power_cut)
    options = TrainingOptions(epochs=3)
    train(new_net(), masked_loss, (x, y), options, checkpoint=tmp_path / "c.safetensors")
    train(new_net(), masked_loss, (x, y), options)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(checkpoint, monkeypatch):
    def write_half(state, file, metadata):
        Path(file).write_bytes(b"half")
        raise PowerCut

    before = checkpoint.read_bytes()
    monkeypatch.setattr("emo_lib.training.weights.save_file", write_half)
    with pytest.raises(PowerCut):
        start(new_net(), checkpoint=checkpoint, epochs=5)
    assert checkpoint.read_bytes() == before


def test_the_curve():
    curve = start(new_net(), epochs=3)
    assert [entry["epoch"] for entry in curve] == [1, 2, 3]
    assert all(set(entry) == {"epoch", "loss"} for entry in curve)
    assert all(type(entry["loss"]) is float for entry in curve)


def test_the_curve_with_validation():
    curve = start(new_net(), val_fn=score, epochs=3)
    assert all(set(entry) == {"epoch", "loss", "val", "best"} for entry in curve)
    assert all(type(entry["val"]) is float for entry in curve)
    assert sum(entry["best"] for entry in curve) == 1
    assert json.loads(json.dumps(curve, allow_nan=False)) == curve


def plain_loss(net, batch, generator):
    return F.mse_loss(net(batch[0]), batch[1])


def test_the_loss_of_an_epoch_is_the_mean_over_samples():
    options = TrainingOptions(lr=0.0, batch_size=36)
    net = nn.Linear(6, 1)
    loss = train_epoch(Run(net, options), plain_loss, (x, y))
    assert loss == pytest.approx(F.mse_loss(net(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("best", [1, 4, 6])
def test_the_best_epoch_comes_back(best):
    states = []

    def val_fn(net):
        states.append({k: v.clone() for k, v in net.state_dict().items()})
        return 1.0 if len(states) in (best, 8) else 0.0  # of equals, the first

    net = new_net()
    curve = start(net, val_fn=val_fn, epochs=9)
    assert [entry["epoch"] for entry in curve if entry["best"]] == [best]
    assert all(torch.equal(v, states[best - 1][k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    "scores, patience, epochs",
    [
        ([1, 0, 0, 0, 0, 0], 2, 3),
        ([0, 1, 0, 2, 0, 0], 2, 6),
        ([0, 1, 0, 0, 2, 0], 2, 4),
        ([1, 1, 1, 1, 1, 1], 3, 4),
        ([1, 0, 0, 0, 0, 0], None, 6),
    ],
)
def test_patience(scores, patience, epochs):
    left = iter(scores)
    curve = start(new_net(), val_fn=lambda net: next(left), epochs=6, patience=patience)
    assert len(curve) == epochs
    assert best_epoch(curve) == 1 + scores[:epochs].index(max(scores[:epochs]))
    assert is_over(curve, 6, patience)


def test_patience_without_validation_stops_nothing():
    assert len(start(new_net(), epochs=6, patience=1)) == 6


def test_validation_is_in_evaluation_mode_and_float32():
    found = []

    def val_fn(net):
        found.append((net.training, torch.is_grad_enabled(), net(x).dtype))
        return 0

    start(new_net(), val_fn=val_fn, epochs=1, precision="bfloat16")
    assert found == [(False, False, torch.float32)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_said_with_epoch_and_remedy(value):
    scores = iter([0.5, 0.5, value])
    words = "val is .* in epoch 3; lower lr .now 0.001. or set clip"
    with pytest.raises(TrainingDiverged, match=words):
        start(new_net(), val_fn=lambda net: next(scores), epochs=9)
    with pytest.raises(TrainingDiverged, match="the loss is .* in epoch 1"):
        start(new_net(), lambda *args: masked_loss(*args) * value, epochs=9)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_clip_bounds_the_step(clip):
    net = new_net()
    before = [p.detach().clone() for p in net.parameters()]
    options = dict(epochs=1, batch_size=96, lr=1.0, momentum=0.0, clip=clip)
    start(net, lambda *args: 1000 * masked_loss(*args), **options)
    steps = [(p - q).norm() for p, q in zip(net.parameters(), before)]
    moved = torch.stack(steps).norm().item()
    assert (moved > 10) if clip is None else moved == pytest.approx(clip, rel=1e-3)


def test_both_random_streams_begin_at_the_seed():
    seeds = []

    def loss(net, batch, generator):
        seeds.append((generator.initial_seed(), torch.initial_seed()))
        return masked_loss(net, batch, generator)

    for seed in (4, 5):
        start(new_net(), loss, epochs=1, batch_size=96, seed=seed)
    assert [s[0] for s in seeds] == [4, 5]
    assert len({*sum(seeds, ())}) == 4


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_seed_decides_all_and_leaves_the_callers_stream_alone(optimizer):
    def fitted(seed, outside):
        torch.manual_seed(outside)
        before, net = torch.get_rng_state(), new_net(dropout=0.5)
        curve = start(net, epochs=2, seed=seed, optimizer=optimizer)
        assert torch.equal(before, torch.get_rng_state())
        return net, curve

    (a, curve_a), (b, curve_b), (c, curve_c) = fitted(1, 10), fitted(1, 20), fitted(2, 10)
    assert are_equal(a, b)
    assert curve_a == curve_b
    assert not are_equal(a, c)
    assert curve_a != curve_c


def test_bfloat16_computes_in_it_and_keeps_weights_in_float32():
    dtypes = set()

    def loss(net, batch, generator):
        out = net(batch[0])
        dtypes.add(out.dtype)
        return F.mse_loss(out.float(), batch[1])

    a, b = new_net(0.0), new_net(0.0)
    half = start(a, loss, epochs=20, lr=0.05, precision="bfloat16")
    full = start(b, loss, epochs=20, lr=0.05)
    assert dtypes == {torch.bfloat16, torch.float32}
    assert {p.dtype for p in a.parameters()} == {torch.float32}
    assert not are_equal(a, b)
    assert half[-1]["loss"] < 0.8 * half[0]["loss"]
    assert half[-1]["loss"] == pytest.approx(full[-1]["loss"], rel=0.05)


def test_an_optimizer_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="optimizer is 'adam'; expected 'sgd' or 'adamw'"):
        start(new_net(), optimizer="adam")


class ToyNet(nn.Module):
    def __init__(self, n, n_classes):
        super().__init__()
        self.hidden = nn.Linear(n, 7)
        self.head = nn.Linear(7, n_classes)

    def features(self, x):
        return self.hidden(x.flatten(1)).relu()

    def forward(self, x):
        return self.head(self.features(x))


class Toy(NetworkClassifier):
    epochs = 3
    device = DEVICE

    def make_net(self, n_bands, n_eye=0):
        return ToyNet(len(self.channels) * n_bands, self.n_classes)

    def prepare(self, samples):
        return samples.as_windows()[:1]


X = np.random.default_rng(0).normal(size=(60, 62, 5)).astype("float32")
labels = np.arange(60) % 3


def test_a_default_is_overridden_by_assigning_it():
    assert Toy(3).get_params()["epochs"] == 3
    assert Toy(3).get_params()["batch_size"] == TrainingOptions().batch_size
    with pytest.raises(ValueError, match="epochs: expected at least 1, found 0"):
        Toy(3, epochs=0).check_params()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_classifier_transforms_to_what_its_last_layer_sees(precision):
    model = Toy(3, precision=precision).fit(X, labels)
    z = model.transform(X)
    logits = torch.as_tensor(z, device=DEVICE) @ model.net_.head.weight.T + model.net_.head.bias
    assert z.shape == (60, 7)
    assert z.dtype == np.float32
    assert np.allclose(logits.double().softmax(1).detach().cpu(), model.predict_proba(X), atol=1e-6)
    assert model.transform(X[:0]).shape == (0, 7)
    assert np.allclose(model.transform(X[:5]), z[:5], atol=1e-6)
    with pytest.raises(ValueError, match="NaN"):
        model.transform(X * np.nan)


def test_precision_is_a_hyper_parameter():
    words = "precision: expected 'float32' or 'bfloat16', found 'float16'"
    with pytest.raises(ValueError, match=words):
        Toy(3, precision="float16").fit(X, labels)
    full, half = (Toy(3, precision=p).fit(X, labels).predict_proba(X) for p in PRECISIONS)
    assert not np.array_equal(full, half)
    assert np.allclose(full, half, atol=0.02)


def test_the_bar_shows_loss_and_val(capfd):
    Toy(3, progress=True).fit(X, labels, val=(X, labels, None))
    shown = capfd.readouterr().err
    assert all(words in shown for words in ("training", "3/3", "loss=", "val="))
    Toy(3).fit(X, labels)
    assert capfd.readouterr().err == ""


def test_samples_of_other_channels_are_refused():
    model = Toy(3).fit(X, labels)
    other = as_samples(X[:, :2], channels=("FP1", "FPZ"))
    with pytest.raises(ValueError, match="expected the 62 channels .* found FP1, FPZ"):
        model.predict(other)


def test_the_description_stands_beside_the_weights(tmp_path):
    info = {"scope": "session", "data": "0123456789abcdef"}
    save_weights(tmp_path / "a.b.safetensors", new_net(), info)
    beside = json.loads((tmp_path / "a.b.json").read_text())
    shapes = beside.pop("shapes")
    assert beside == read_weights(tmp_path / "a.b.safetensors")[1]
    assert beside.pop("versions") == {
        "emo_lib": __version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    assert beside == info
    assert shapes["0.weight"] == [16, 6]
    assert set(shapes) == set(new_net().state_dict())


def test_a_saved_model_is_described(tmp_path):
    Toy(3).fit(X, labels).save(tmp_path / "toy.safetensors")
    info = json.loads((tmp_path / "toy.json").read_text())
    assert info["class"] == "Toy"
    assert info["params"]["epochs"] == 3
    assert info["n_bands"] == 5


@pytest.mark.parametrize("change", [dict(params=None), dict(n_bands=None), dict(n_bands="5")])
def test_a_damaged_description_of_a_model_is_named(tmp_path, change):
    file = tmp_path / "toy.safetensors"
    model = Toy(3).fit(X, labels)
    model.save(file)
    save_weights(file, model.net_, read_weights(file)[1] | change)
    with pytest.raises(ValueError, match="toy.safetensors: expected"):
        Toy(3).load(file)


def test_a_crash_between_the_two_files_leaves_the_old_weights(tmp_path, monkeypatch):
    file, old = tmp_path / "w.safetensors", new_net()
    save_weights(file, old, {"n": 1})
    with monkeypatch.context() as m:
        m.setattr("emo_lib.training.weights.save_file", raise_power_cut)
        with pytest.raises(PowerCut):
            save_weights(file, new_net(seed=1), {"n": 2})
    weights, info = read_weights(file)
    loaded = new_net(seed=2)
    fit_into(loaded, weights)
    assert info["n"] == 1
    assert are_equal(loaded, old)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.json", "w.safetensors"]
    (tmp_path / "w.json").unlink()
    assert read_weights(file)[1] == info


def test_a_folder_and_a_device_that_does_not_exist_are_named(tmp_path):
    with pytest.raises(ValueError, match="found a folder"):
        read_weights(tmp_path)
    with pytest.raises(ValueError, match="cpu:x"):
        pick_device("cpu:x")
