"""One contract for all models: a model is tested here by being in the registry. Tiny hyper-parameters, SYNTHETIC windows."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from emo_lib.base.montage import CHANNELS
from emo_lib.models.registry import MODELS, make_model

VIT = dict(epochs=2, layers=1, heads=2, dim=16, head_width=8)
TINY = {
    "vit": VIT,
    "simplevit": VIT,
    "fbccnn": dict(epochs=2, width=0.05),
    "stnet": dict(epochs=2, width=0.05),
    "dgcnn": dict(epochs=2),
    "msmae": dict(epochs=2, pretrain_epochs=1, dim_channel=16, dim_spatial=16, layers=1, heads=2),
}
every_model = pytest.mark.parametrize("name", list(MODELS))
NETWORKS = [name for name in MODELS if name != "svm"]
every_network = pytest.mark.parametrize("name", NETWORKS)


def toy(n_channels=62, n=24, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = rng.normal(20, 2, (n, n_channels, 5)).astype("float32")
    X[:, :8, 4] += 4 * y[:, None]
    return X, y


def make(name, n_channels=62, n_classes=3, **hyper):
    return make_model(
        name, n_classes, CHANNELS[:n_channels], device="cpu", **{**TINY.get(name, {}), **hyper}
    )


@every_model
@pytest.mark.parametrize("n_channels", [62, 30])
@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_answers(name, n_channels, n_classes):
    X, y = toy(n_channels, classes=n_classes)
    model = make(name, n_channels, n_classes)
    assert model.fit(X, y) is model
    p, yhat = model.predict_proba(X), model.predict(X)
    assert (
        p.shape == (24, n_classes)
        and np.isfinite(p).all()
        and (p >= 0).all()
        and np.allclose(p.sum(1), 1)
    )
    assert (
        np.array_equal(yhat, p.argmax(1))
        and np.array_equal(model.classes_, np.arange(n_classes))
        and yhat.dtype.kind == "i"
    )


@every_model
def test_the_input_is_left_alone_and_types_are_free(name):
    X, y = toy()
    before = X.copy()
    a = make(name).fit(X, y).predict_proba(X)
    assert np.array_equal(X, before)
    b = make(name).fit(X.astype("float64"), y.astype("int32")).predict_proba(X.tolist())
    assert np.array_equal(a, b)


@every_model
def test_equal_seeds_give_equal_answers(name):
    X, y = toy()
    a = make(name, seed=3).fit(X, y)
    np.random.seed(99)
    b = clone(a).fit(X, y)
    assert (
        np.array_equal(a.predict_proba(X), b.predict_proba(X)) and a.get_params() == b.get_params()
    )
    assert np.array_equal(a.predict_proba(X), a.predict_proba(X)), "prediction is not random"
    assert np.array_equal(a.fit(X, y).predict_proba(X), b.predict_proba(X)), (
        "fit starts from scratch"
    )


@every_model
def test_a_window_does_not_see_its_neighbours_in_prediction(name):
    X, y = toy()
    model = make(name).fit(X, y)
    assert np.allclose(model.predict_proba(X)[5:6], model.predict_proba(X[5:6]), atol=1e-5)


@every_model
@pytest.mark.parametrize("k", [1, 10, 40])
def test_missing_channels_cannot_speak(name, k):
    X, y = toy()
    missing = np.random.default_rng(k).choice(62, k, replace=False)
    there = np.ones(62, bool)
    there[missing] = False
    per_window = np.ones((24, 62), bool)
    per_window[::2, missing] = False
    for valid in (there, per_window):
        full = np.broadcast_to(valid, (24, 62))
        junk = np.where(full[..., None], X, 1e6).astype("float32")
        a, b = make(name).fit(X, y, valid=valid), make(name).fit(junk, y, valid=valid)
        assert np.array_equal(a.predict_proba(X, valid=valid), b.predict_proba(junk, valid=valid))


@every_model
def test_validation_windows_are_accepted(name):
    X, y = toy()
    V, yv = toy(seed=1)
    model = make(name).fit(X, y, val=(V, yv, np.ones((24, 62), bool)))
    assert model.predict(V).shape == (24,)


def broken(change):
    X, y = toy()
    X, y = change(X, y)
    return X, y


@every_model
@pytest.mark.parametrize(
    "change",
    [
        lambda X, y: (np.where(np.arange(5) == 2, np.nan, X), y),
        lambda X, y: (np.where(np.arange(5) == 2, np.inf, X), y),
        lambda X, y: (X[:, :61], y),
        lambda X, y: (X[..., 0], y),
        lambda X, y: (X, y[:-1]),
        lambda X, y: (X, y + 1),
        lambda X, y: (X, y - 1),
        lambda X, y: (X, y + 0.5),
        lambda X, y: (X[:1], y[:1]),
    ],
    ids=[
        "NaN",
        "inf",
        "61 channels",
        "no bands",
        "labels short",
        "label 3",
        "label -1",
        "label 0.5",
        "one window",
    ],
)
def test_bad_input_is_refused_in_fit(name, change):
    with pytest.raises(ValueError):
        make(name).fit(*broken(change))


@every_model
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda X, y: (X, 0 * y + 1), "at least 2 classes, found only class 1"),
        (lambda X, y: (X.astype(str), y), "real numbers"),
        (lambda X, y: (X + 0j, y), "real numbers"),
        (lambda X, y: (X.astype(object), y), "real numbers"),
        (lambda X, y: (X[..., :0], y), "at least one band"),
        (lambda X, y: (X[:0], y[:0]), "at least 2 windows"),
    ],
    ids=["one class", "text", "complex", "objects", "0 bands", "0 windows"],
)
def test_every_model_refuses_in_the_same_words(name, change, words):
    with pytest.raises(ValueError, match=words):
        make(name).fit(*broken(change))


@every_model
@pytest.mark.parametrize(
    "channels, words",
    [
        (("FP1", "cz", "A1"), "unknown 'cz', 'A1'"),
        (("FP1", "CZ", "CZ"), "twice 'CZ'"),
        ((), "found none"),
    ],
)
def test_channel_names_are_those_of_the_montage_each_once(name, channels, words):
    X, y = toy(len(channels))
    model = make_model(name, 3, channels, device="cpu", **TINY.get(name, {}))
    with pytest.raises(ValueError, match=words):
        model.check_params()
    with pytest.raises(ValueError, match=words):
        model.fit(X, y)


@every_model
def test_bad_validation_windows_are_refused(name):
    X, y = toy()
    for val in (
        (X[:, :61], y),
        (X, y + 1),
        (X, y[:-1]),
        (X[..., :4], y),
        (X * np.nan, y),
        (X[:0], y[:0]),
        (X, y, np.ones(61, bool)),
        X,
    ):
        with pytest.raises(ValueError):
            make(name).fit(X, y, val=val)


@every_model
def test_no_windows_no_answers(name):
    X, y = toy()
    model = make(name).fit(X, y)
    assert (
        model.predict(X[:0]).shape == (0,) and model.predict(X[:0]).dtype == model.predict(X).dtype
    )
    assert model.predict_proba(X[:0]).shape == (0, 3)


@every_network
def test_a_loss_that_explodes_is_a_value_error(name):
    X, y = toy()
    with pytest.raises(ValueError, match="the loss is .* lower lr"):
        make(name, lr=1e30, optimizer="sgd", epochs=8).fit(X, y)


@every_model
def test_bad_input_is_refused_in_predict(name):
    X, y = toy()
    model = make(name).fit(X, y)
    for bad in (np.full_like(X, np.nan), X[:, :61], X[..., :4]):
        with pytest.raises(ValueError):
            model.predict(bad)
        with pytest.raises(ValueError):
            model.predict_proba(bad)
    for valid in (np.ones(61, bool), np.ones(62), np.zeros(62, bool)):
        with pytest.raises(ValueError):
            model.predict(X, valid=valid)


@every_model
def test_predict_before_fit(name):
    with pytest.raises(NotFittedError):
        make(name).predict(toy()[0])
    with pytest.raises(NotFittedError):
        make(name).predict_proba(toy()[0])


@every_model
def test_unknown_hyper_parameters_are_named_with_the_known(name):
    with pytest.raises(TypeError, match="no_such") as e:
        make_model(name, 3, no_such=1)
    assert "seed" in str(e.value)
    with pytest.raises(TypeError, match="no_such"):
        MODELS[name](3, no_such=1)


@every_model
def test_impossible_hyper_parameters_are_refused_before_data(name):
    assert make_model(name, 3).check_params() is not None
    with pytest.raises(ValueError, match="seed"):
        make(name, seed=-1).check_params()
    with pytest.raises(ValueError, match="seed"):
        make(name, seed="zero").fit(*toy())


@every_model
def test_pretraining_is_optional_and_keeps_the_contract(name):
    model = make(name)
    if not hasattr(model, "pretrain"):
        pytest.skip("learns from labels only")
    X, y = toy()
    model.pretrain(X, X_target=X[:12])
    assert np.allclose(model.fit(X, y).predict_proba(X).sum(1), 1)


@every_network
@pytest.mark.parametrize("n_channels", [62, 30])
def test_saved_and_loaded_weights_answer_alike(name, n_channels, tmp_path):
    X, y = toy(n_channels)
    per_window = np.ones((24, n_channels), bool)
    per_window[::2, 3] = False
    model = make(name, n_channels).fit(X, y, valid=per_window)
    model.save(tmp_path / "weights.safetensors")
    again = make(name, n_channels, seed=7).load(tmp_path / "weights.safetensors")
    for valid in (None, per_window):
        assert np.array_equal(
            again.predict_proba(X, valid=valid), model.predict_proba(X, valid=valid)
        )
        assert np.array_equal(again.transform(X, valid=valid), model.transform(X, valid=valid))
    with pytest.raises(ValueError, match="expected channels"):
        make(name, n_channels - 1).load(tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="do not fit this network"):
        make(name, n_channels, n_classes=4).load(tmp_path / "weights.safetensors")


@every_network
def test_weights_of_another_class_are_refused(name, tmp_path):
    X, y = toy()
    make(name).fit(X, y).save(tmp_path / "weights.safetensors")
    for other in NETWORKS:
        if MODELS[other] is MODELS[name]:
            continue
        with pytest.raises(ValueError, match="expected class .* found"):
            make(other).load(tmp_path / "weights.safetensors")


@every_network
def test_transform_is_what_the_last_linear_layer_sees(name):
    X, y = toy()
    model = make(name)
    with pytest.raises(NotFittedError):
        model.transform(X)
    z = model.fit(X, y).transform(X)
    assert z.dtype == np.float32 and z.ndim == 2 and len(z) == 24 and np.isfinite(z).all()
    last = [m for m in model.net_.modules() if type(m).__name__ == "Linear"][-1]
    logits = z @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    assert np.allclose(p / p.sum(1, keepdims=True), model.predict_proba(X), atol=1e-5)
    with pytest.raises(ValueError):
        model.transform(X[:, :61])


@every_network
def test_no_windows_no_features(name):
    X, y = toy()
    model = make(name).fit(X, y)
    assert model.transform(X[:0]).shape == (0, model.transform(X).shape[1])


@every_network
def test_half_precision_trains_other_weights_near_the_same(name):
    X, y = toy()
    full, half = (make(name, precision=p).fit(X, y) for p in ("float32", "bfloat16"))
    assert all(
        v.dtype == w.dtype
        for v, w in zip(full.net_.state_dict().values(), half.net_.state_dict().values())
    ), "master weights stay as they are"
    a, b = full.predict_proba(X), half.predict_proba(X)
    assert not np.array_equal(a, b) and np.allclose(a, b, atol=0.1)
    with pytest.raises(ValueError, match="precision"):
        make(name, precision="float16").check_params()


def test_an_image_model_cannot_know_the_size_of_the_cap():
    sizes = {
        name: [
            sum(p.numel() for p in make(name, n).fit(*toy(n)).net_.parameters()) for n in (62, 30)
        ]
        for name in ("vit", "simplevit", "fbccnn", "stnet")
    }
    assert all(a == b for a, b in sizes.values()), sizes


@pytest.mark.parametrize(
    "name, counts",
    [
        ("vit", (114_338, 114_371, 114_404)),
        ("simplevit", (25_570, 25_603, 25_636)),
        ("fbccnn", (2_118_338, 2_118_467, 2_118_596)),
        ("stnet", (2_387_858, 2_388_883, 2_389_908)),
        ("dgcnn", (131_344, 131_409, 131_474)),
    ],
)
def test_table_ii_has_the_parameters_that_torcheeg_counts(name, counts):
    "TorchEEG 1.1.3 with five bands, 2, 3 and 4 classes; ViT and SimpleViT with patches of one electrode and all bands; DGCNN with 62 electrodes."
    for n_classes, count in zip((2, 3, 4), counts):
        model = make_model(name, n_classes)
        model.n_bands_ = 5
        assert sum(p.numel() for p in model._build().parameters()) == count


@pytest.mark.parametrize("scale", ["sample", "band", "standard"])
def test_dgcnn_keeps_its_scale_in_the_weights(scale, tmp_path):
    X, y = toy()
    model = make("dgcnn", scale=scale).fit(X, y)
    model.save(tmp_path / "w.safetensors")
    assert np.array_equal(
        make("dgcnn", scale=scale).load(tmp_path / "w.safetensors").predict_proba(X),
        model.predict_proba(X),
    )


def test_names():
    assert list(MODELS) == ["vit", "simplevit", "fbccnn", "stnet", "dgcnn", "msmae", "svm"], (
        "the order of the paper's Table II, then ours"
    )
    with pytest.raises(ValueError, match="known: vit, simplevit, fbccnn, stnet, dgcnn, msmae, svm"):
        make_model("smv", 3)
    for name in MODELS:
        with pytest.raises(ValueError, match="at least 2 classes"):
            make_model(name, 1)


def test_the_registry_does_not_import_torch():
    code = "import sys, emo_lib.models.registry as m; m.MODELS; 'svm' in m.MODELS; assert 'torch' not in sys.modules and 'mne' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "name, change",
    [
        ("vit", dict(heads=8, head_width=32)),
        ("vit", dict(scale="band")),
        ("dgcnn", dict(scale="band")),
        ("msmae", dict(heads=4)),
        ("msmae", dict(pool="max")),
        ("msmae", dict(scale="band")),
    ],
)
def test_weights_of_other_parameters_are_refused_even_where_shapes_agree(name, change, tmp_path):
    X, y = toy()
    make(name).fit(X, y).save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=f"expected ({'|'.join(change)}) "):
        make(name, **change).load(tmp_path / "m.safetensors")


@every_model
@pytest.mark.parametrize("bad", [10**330, -(10**330), float("inf")])
def test_numbers_beyond_all_bounds_are_refused(name, bad):
    key = "C" if name == "svm" else "lr"
    with pytest.raises(ValueError, match=key):
        make(name, **{key: bad}).check_params()
