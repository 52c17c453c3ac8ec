"""The training loop where a notebook would be tedious: a process that is really killed, files that are damaged or foreign, every option with every other."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from emo_lib import __version__
from emo_lib.base.montage import CHANNELS
from emo_lib.training.training import (
    PRECISIONS,
    NetworkClassifier,
    TrainingDiverged,
    best_epoch,
    is_over,
    load_weights,
    make_optimizer,
    read_weights,
    save_weights,
    seeded,
    train,
    train_epoch,
)

torch.set_num_threads(1)
rng = torch.Generator().manual_seed(0)
x = torch.randn(96, 6, generator=rng)
y = torch.sin(x.sum(1, keepdim=True)) + 0.1 * torch.randn(96, 1, generator=rng)


def net(dropout=0.2, seed=0):
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 1)
        )


def masked_loss(net, batch, generator):
    "As in pre-training: some inputs are hidden, drawn from the loop's generator."
    hide = torch.rand(batch[0].shape, generator=generator) < 0.3
    return F.mse_loss(net(batch[0].masked_fill(hide, 0)), batch[1])


def score(net):
    return -F.mse_loss(net(x), y)


def same(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


class PowerCut(Exception):
    "Where a process would have been killed."


def cut_after(steps, loss=masked_loss):
    "`loss`, until it has been asked for `steps` times."
    left = iter(range(steps))

    def shaky(*args):
        if next(left, None) is None:
            raise PowerCut
        return loss(*args)

    return shaky


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
    how = (
        dict(epochs=12, lr=0.05)
        | options
        | dict(checkpoint=tmp_path / "c.safetensors", checkpoint_s=0)
    )
    whole = net()
    curve = train(whole, masked_loss, (x, y), **how)
    with pytest.raises(PowerCut):
        train(net(), cut_after(steps), (x, y), **how)
    torch.manual_seed(steps)  # what the next process has drawn before must not matter
    again = net()
    assert (
        train(again, masked_loss, (x, y), **how) == curve
        and same(again, whole)
        and not list(tmp_path.iterdir())
    )


def test_cut_off_twice_and_once_between_the_last_epoch_and_the_end(tmp_path, monkeypatch):
    how = dict(
        epochs=5,
        val_fn=score,
        patience=2,
        lr=0.3,
        checkpoint=tmp_path / "c.safetensors",
        checkpoint_s=0,
    )
    whole = net()
    curve = train(whole, masked_loss, (x, y), **how)
    for steps in (4, 4):
        with pytest.raises(PowerCut):
            train(net(), cut_after(steps), (x, y), **how)
    with monkeypatch.context() as m:
        m.setattr(
            "emo_lib.training.training.Run.finish", lambda *args: (_ for _ in ()).throw(PowerCut())
        )
        with pytest.raises(PowerCut):
            train(net(), masked_loss, (x, y), **how)
    again = net()
    assert train(again, cut_after(0), (x, y), **how) == curve and same(
        again, whole
    )  # not one step more


def pretrain_like(file, checkpoint, pause=0.0):
    "Train the same small network for 30 epochs, slowly if `pause` (seconds a batch) is given, and save it with its curve."
    n = net()

    def loss(*args):
        time.sleep(pause)
        return masked_loss(*args)

    save_weights(
        file,
        n,
        {
            "history": train(
                n,
                loss,
                (x, y),
                epochs=30,
                optimizer="adamw",
                val_fn=score,
                checkpoint=checkpoint,
                checkpoint_s=0,
            )
        },
    )


def test_a_killed_process_started_again_ends_at_the_same_weights(tmp_path):
    whole, killed, checkpoint = (
        tmp_path / "whole.safetensors",
        tmp_path / "killed.safetensors",
        tmp_path / "checkpoint.safetensors",
    )
    program = "import sys; sys.path.insert(0, sys.argv[1]); from test_training import pretrain_like; pretrain_like(*sys.argv[2:4], float(sys.argv[4]))"

    def start(pause):
        return subprocess.Popen(
            [sys.executable, "-c", program, Path(__file__).parent, killed, checkpoint, str(pause)]
        )

    victim, until = start(0.05), time.monotonic() + 60  # 30 epochs would last 4.5 s
    try:
        while not checkpoint.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.5)
    finally:
        victim.send_signal(signal.SIGKILL)
    assert (
        victim.wait() == -signal.SIGKILL
        and not killed.exists()
        and 1 <= len(read_weights(checkpoint)[1]["history"]) < 30
    )
    assert start(0).wait(60) == 0 and not checkpoint.exists()
    pretrain_like(whole, None)
    (a, info_a), (b, info_b) = read_weights(whole), read_weights(killed)
    assert (
        all(torch.equal(v, b[k]) for k, v in a.items())
        and info_a == info_b
        and len(info_a["history"]) == 30
    )


@pytest.fixture
def checkpoint(tmp_path):
    "The checkpoint of a training that was cut off in its third epoch."
    file = tmp_path / "c.safetensors"
    with pytest.raises(PowerCut):
        train(net(), cut_after(7), (x, y), epochs=5, checkpoint=file, checkpoint_s=0)
    return file


@pytest.mark.parametrize(
    "change, named",
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
def test_a_checkpoint_of_other_arguments_is_refused(checkpoint, change, named):
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match="another training") as e:
        train(
            net(),
            masked_loss,
            (x, y),
            **dict(epochs=5, checkpoint=checkpoint, checkpoint_s=0) | change,
        )
    assert (
        named in str(e.value)
        and str(checkpoint) in str(e.value)
        and "delete it" in str(e.value)
        and checkpoint.read_bytes() == before
    )


@pytest.mark.parametrize("what", ["data", "labels", "initial weights", "shapes", "frozen"])
def test_a_checkpoint_of_other_data_or_another_network_is_refused(checkpoint, what):
    other, data = net(), [x, y]
    if what == "data":
        data[0] = torch.cat([x[:-1], x[-1:] + 1e-6])
    if what == "labels":
        data[1] = y.flip(0)
    if what == "initial weights":
        other = net(seed=1)
    if what == "shapes":
        other[4] = nn.Linear(16, 1, bias=False)
    if what == "frozen":
        other[0].requires_grad_(False)
    with pytest.raises(
        ValueError,
        match="untrained weights" if len(what) > 6 or what in ("shapes", "frozen") else "data",
    ):
        train(other, masked_loss, tuple(data), epochs=5, checkpoint=checkpoint, checkpoint_s=0)


def test_a_damaged_or_foreign_checkpoint_is_named(checkpoint):
    whole = checkpoint.read_bytes()

    def again():
        train(net(), masked_loss, (x, y), epochs=5, checkpoint=checkpoint)

    for broken in (whole[:-100], whole[:20], b"", b"not weights at all"):
        checkpoint.write_bytes(broken)
        with pytest.raises(ValueError, match="c.safetensors.*delete it"):
            again()
    save_weights(checkpoint, net(), {"what": "a network"})
    with pytest.raises(ValueError, match="another training"):
        again()
    checkpoint.write_bytes(whole)
    again()


def test_a_short_training_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "emo_lib.training.training.write_checkpoint", lambda *args: pytest.fail("wrote")
    )
    train(net(), masked_loss, (x, y), epochs=3, checkpoint=tmp_path / "c.safetensors")
    train(net(), masked_loss, (x, y), epochs=3)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()
    with monkeypatch.context() as m:

        def half(state, file, metadata):
            Path(file).write_bytes(b"half")
            raise PowerCut

        m.setattr("emo_lib.training.training.save_file", half)
        with pytest.raises(PowerCut):
            train(net(), masked_loss, (x, y), epochs=5, checkpoint=checkpoint, checkpoint_s=0)
    assert checkpoint.read_bytes() == before


def test_the_curve():
    h = train(net(), masked_loss, (x, y), epochs=3)
    assert [e["epoch"] for e in h] == [1, 2, 3] and all(
        set(e) == {"epoch", "loss"} and type(e["loss"]) is float for e in h
    )
    h = train(net(), masked_loss, (x, y), epochs=3, val_fn=score)
    assert (
        all(set(e) == {"epoch", "loss", "val", "best"} and type(e["val"]) is float for e in h)
        and sum(e["best"] for e in h) == 1
    )
    assert json.loads(json.dumps(h, allow_nan=False)) == h


def test_the_loss_of_an_epoch_is_the_mean_over_samples():
    n, still = nn.Linear(6, 1), dict(lr=0.0)
    loss = lambda net, batch, generator: F.mse_loss(net(batch[0]), batch[1])
    assert train_epoch(n, loss, (x, y), make_optimizer(n, **still), 36, None) == pytest.approx(
        F.mse_loss(n(x), y).item(), rel=1e-5
    )


@pytest.mark.parametrize("best", [1, 4, 6])
def test_the_best_epoch_comes_back(best):
    seen = []

    def val_fn(net):
        seen.append({k: v.clone() for k, v in net.state_dict().items()})
        return 1.0 if len(seen) in (best, 8) else 0.0  # of equals, the first

    n = net()
    h = train(n, masked_loss, (x, y), epochs=9, val_fn=val_fn)
    assert [e["epoch"] for e in h if e["best"]] == [best] and all(
        torch.equal(v, seen[best - 1][k]) for k, v in n.state_dict().items()
    )


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
    h = train(
        net(), masked_loss, (x, y), epochs=6, val_fn=lambda net: next(left), patience=patience
    )
    assert (
        len(h) == epochs
        and best_epoch(h) == 1 + scores[:epochs].index(max(scores[:epochs]))
        and is_over(h, 6, patience)
    )


def test_patience_without_validation_stops_nothing():
    assert len(train(net(), masked_loss, (x, y), epochs=6, patience=1)) == 6


def test_validation_is_in_evaluation_mode_and_float32():
    seen = []

    def val_fn(net):
        seen.append((net.training, torch.is_grad_enabled(), net(x).dtype))
        return 0

    train(net(), masked_loss, (x, y), epochs=1, val_fn=val_fn, precision="bfloat16")
    assert seen == [(False, False, torch.float32)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_said_with_epoch_and_remedy(value):
    epochs = iter([0.5, 0.5, value])

    def val_fn(net):
        return next(epochs)

    with pytest.raises(
        TrainingDiverged, match="val is .* in epoch 3; lower lr .now 0.001. or set clip"
    ):
        train(net(), masked_loss, (x, y), epochs=9, val_fn=val_fn)
    with pytest.raises(TrainingDiverged, match="the loss is .* in epoch 1"):
        train(net(), lambda *a: masked_loss(*a) * value, (x, y), epochs=9)


def test_clip_bounds_the_step():
    for clip in (None, 0.1):
        n = net()
        before = [p.detach().clone() for p in n.parameters()]
        train_epoch(
            n,
            lambda *args: 1000 * masked_loss(*args),
            (x, y),
            make_optimizer(n, lr=1.0, momentum=0.0),
            96,
            torch.Generator(),
            clip,
        )
        moved = torch.stack([(p - q).norm() for p, q in zip(n.parameters(), before)]).norm().item()
        assert (moved > 10) if clip is None else moved == pytest.approx(clip, rel=1e-3)


def test_both_random_streams_begin_at_the_seed():
    seen = []

    def loss(net, batch, generator):
        seen.append((generator.initial_seed(), torch.initial_seed()))
        return masked_loss(net, batch, generator)

    for seed in (4, 5):
        train(net(), loss, (x, y), epochs=1, batch_size=96, seed=seed)
    assert [s[0] for s in seen] == [4, 5] and len({*sum(seen, ())}) == 4


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_seed_decides_all_and_leaves_the_callers_stream_alone(optimizer):
    def fitted(seed, outside):
        torch.manual_seed(outside)
        before, n = torch.get_rng_state(), net(dropout=0.5)
        h = train(n, masked_loss, (x, y), epochs=2, seed=seed, optimizer=optimizer)
        assert torch.equal(before, torch.get_rng_state())
        return n, h

    (a, h_a), (b, h_b), (c, h_c) = fitted(1, 10), fitted(1, 20), fitted(2, 10)
    assert same(a, b) and h_a == h_b and not same(a, c) and h_a != h_c


def test_bfloat16_computes_in_it_and_keeps_weights_in_float32():
    seen = set()

    def loss(net, batch, generator):
        out = net(batch[0])
        seen.add(out.dtype)
        return F.mse_loss(out.float(), batch[1])

    a, b = net(0.0), net(0.0)
    half, full = (
        train(n, loss, (x, y), epochs=20, lr=0.05, precision=p)
        for n, p in ((a, "bfloat16"), (b, "float32"))
    )
    assert (
        seen == {torch.bfloat16, torch.float32}
        and {p.dtype for p in a.parameters()} == {torch.float32}
        and not same(a, b)
    )
    assert half[-1]["loss"] < 0.8 * half[0]["loss"] and half[-1]["loss"] == pytest.approx(
        full[-1]["loss"], rel=0.05
    )


class ToyNet(nn.Module):
    def __init__(self, n, n_classes):
        super().__init__()
        self.hidden, self.head = nn.Linear(n, 7), nn.Linear(7, n_classes)

    def features(self, x):
        return self.hidden(x.flatten(1)).relu()

    def forward(self, x):
        return self.head(self.features(x))


class Toy(NetworkClassifier):
    "Repeats only the parameters it wants: the others keep the defaults of `train`."

    def __init__(
        self,
        n_classes,
        channels=CHANNELS,
        *,
        epochs=3,
        patience=None,
        precision="float32",
        seed=0,
        device="cpu",
        progress=False,
    ):
        self._set(locals())

    def _build(self):
        return ToyNet(len(self.channels) * self.n_bands_, self.n_classes)

    def _prepare(self, X, valid):
        return (X,)


X, labels = np.random.default_rng(0).normal(size=(60, 62, 5)).astype("float32"), np.arange(60) % 3


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_classifier_transforms_to_what_its_last_layer_sees(precision):
    model = Toy(3, precision=precision).fit(X, labels)
    z = model.transform(X)
    logits = torch.as_tensor(z) @ model.net_.head.weight.T + model.net_.head.bias
    assert (
        z.shape == (60, 7)
        and z.dtype == np.float32
        and np.allclose(logits.double().softmax(1).detach(), model.predict_proba(X), atol=1e-6)
    )
    assert model.transform(X[:0]).shape == (0, 7) and np.allclose(
        model.transform(X[:5]), z[:5], atol=1e-6
    )
    with pytest.raises(ValueError, match="NaN"):
        model.transform(X * np.nan)


def test_precision_is_a_hyper_parameter():
    with pytest.raises(
        ValueError, match="precision: expected one of 'float32', 'bfloat16', found 'float16'"
    ):
        Toy(3, precision="float16").fit(X, labels)
    a, b = (Toy(3, precision=p).fit(X, labels).predict_proba(X) for p in PRECISIONS)
    assert not np.array_equal(a, b) and np.allclose(a, b, atol=0.02)


def test_the_bar_shows_loss_and_val(capfd):
    Toy(3, progress=True).fit(X, labels, val=(X, labels, None))
    said = capfd.readouterr().err
    assert "training" in said and "3/3" in said and "loss=" in said and "val=" in said
    Toy(3).fit(X, labels)
    assert capfd.readouterr().err == ""


def test_the_description_stands_beside_the_weights(tmp_path):
    save_weights(
        tmp_path / "a.b.safetensors", net(), {"scope": "session", "data": "0123456789abcdef"}
    )
    beside, info = (
        json.loads((tmp_path / "a.b.json").read_text()),
        read_weights(tmp_path / "a.b.safetensors")[1],
    )
    assert {k: v for k, v in beside.items() if k != "shapes"} == info and info["scope"] == "session"
    assert info["versions"] == {
        "emo_lib": __version__,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    assert beside["shapes"]["0.weight"] == [16, 6] and len(beside["shapes"]) == len(
        net().state_dict()
    )
    Toy(3).fit(X, labels).save(tmp_path / "toy.safetensors")
    assert json.loads((tmp_path / "toy.json").read_text())["params"]["epochs"] == 3


def test_a_crash_between_the_two_files_leaves_the_old_weights(tmp_path, monkeypatch):
    file, old = tmp_path / "w.safetensors", net()
    save_weights(file, old, {"n": 1})
    with monkeypatch.context() as m:
        m.setattr(
            "emo_lib.training.training.save_file", lambda *a, **k: (_ for _ in ()).throw(PowerCut())
        )
        with pytest.raises(PowerCut):
            save_weights(file, net(seed=1), {"n": 2})
    back = net(seed=2)
    assert (
        load_weights(file, back)["n"] == 1
        and same(back, old)
        and sorted(p.name for p in tmp_path.iterdir()) == ["w.json", "w.safetensors"]
    )
    (tmp_path / "w.json").unlink()
    assert load_weights(file, back)["n"] == 1


@pytest.mark.parametrize("info", [[], 5, {"identity": 5}, {"identity": {}}])
def test_a_file_of_another_kind_is_no_checkpoint(tmp_path, info):
    from emo_lib.training.training import write_tensors

    write_tensors(tmp_path / "c.safetensors", {"a": torch.zeros(1)}, info)
    with pytest.raises(ValueError, match="c.safetensors"):
        train(net(), masked_loss, (x, y), epochs=1, checkpoint=tmp_path / "c.safetensors")


def test_a_folder_and_a_device_that_is_none_are_named(tmp_path):
    with pytest.raises(ValueError, match="found a folder"):
        read_weights(tmp_path)
    from emo_lib.training.training import pick_device

    with pytest.raises(ValueError, match="cpu:x"):
        pick_device("cpu:x")
