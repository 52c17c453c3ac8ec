"""Draw nbs/images/first_look.png, the picture of the README, from a SYNTHETIC twin."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap

import emo_lib as emo

FILE = Path(__file__).resolve().parents[1] / "nbs/images/first_look.png"
EMOTIONS = ("negative", "neutral", "positive")
MODELS = {"svm": {}, "dgcnn": {"epochs": 20}, "vit": {"head_width": 8, "epochs": 10, "lr": 0.002}}
OPTIONS = {"vit": {"optimizer": "adamw"}}
PART_COLOURS = ListedColormap(["#d9d9d9", "#0072B2", "#E69F00"])


def twin_features(folder, subjects=4):
    """DE features of a small twin of SEED."""
    emo.write_twin("SEED", folder, subjects=subjects, seconds_per_trial=20)
    return emo.open_dataset("SEED", folder).features("de_LDS", window_s=1.0)


def draw_maps(features, axes):
    """Beta DE of each emotion minus the mean of its session, averaged over everyone."""
    beta = features.eeg.sel(band="beta").to_pandas()
    sessions = [features[name].values for name in ("subject", "session")]
    centred = beta - beta.groupby(sessions).transform("mean")
    montage = mne.channels.make_standard_montage("standard_1005")
    places = {name.upper(): xyz for name, xyz in montage.get_positions()["ch_pos"].items()}
    channels = [c for c in centred.columns if c in places]
    info = mne.create_info(channels, 200, "eeg")
    info.set_montage(mne.channels.make_dig_montage({c: places[c] for c in channels}))
    means = centred[channels].groupby(features.label.values).mean()
    limit = np.abs(means.to_numpy()).max()
    for axis, (label, values) in zip(axes, means.iterrows()):
        scale = {"vlim": (-limit, limit), "cmap": "RdBu_r", "contours": 0}
        mne.viz.plot_topomap(values.to_numpy(), info, axes=axis, show=False, **scale)
        axis.set_title(EMOTIONS[label], fontsize=10)


def draw_fold(features, protocol, axis):
    """Which trials of one fold train (blue) and test (orange), a row per subject and session."""
    meta = emo.make_samples(features).meta
    fold = next(emo.make_protocol(protocol).split(meta))
    part = np.zeros(len(meta), int)
    part[fold.train], part[fold.test] = 1, 2
    table = pd.Series(part).groupby([meta[c] for c in ("subject", "session", "trial")]).first()
    image = table.unstack("trial")
    extent = (0.5, image.shape[1] + 0.5, len(image) - 0.5, -0.5)
    axis.imshow(image, aspect="auto", cmap=PART_COLOURS, vmin=0, vmax=2, extent=extent)
    axis.set_title(f"one fold of {protocol}", fontsize=10)
    axis.set_xlabel("trial", fontsize=9)
    axis.set_yticks(range(1, len(image), 3), [f"subject {s}" for s in meta.subject.unique()])
    axis.tick_params(labelsize=8)


def draw_accuracies(features, axis):
    """The accuracy of each subject, a column per model."""
    for i, (name, hyper) in enumerate(MODELS.items()):
        model = emo.make_model(name, n_classes=3, **hyper, **OPTIONS.get(name, {}))
        frame = emo.evaluate(model, features, progress=False).subject_frame()
        accuracy = 100 * frame.groupby("subject").accuracy.mean()
        axis.plot(np.full(len(accuracy), i), accuracy, "o", color="#0072B2", alpha=0.7)
    axis.axhline(100 / 3, color="#555555", linestyle=":", linewidth=1)
    axis.set_xticks(range(len(MODELS)), MODELS, fontsize=9)
    axis.set_xlim(-0.5, len(MODELS) - 0.5)
    axis.set_ylim(0, 100)
    axis.set_title("accuracy of each subject, %", fontsize=10)
    axis.tick_params(axis="y", labelsize=8)


def main():
    """Draw the picture."""
    with tempfile.TemporaryDirectory() as folder:
        features = twin_features(folder)
    figure = plt.figure(figsize=(12, 3.2), layout="constrained")
    maps, folds, scores = figure.subfigures(1, 3, width_ratios=(1.15, 1.15, 0.8))
    maps.suptitle("differential entropy, beta band, SYNTHETIC twin", fontsize=11)
    draw_maps(features, maps.subplots(1, 3))
    folds.suptitle("protocols: train blue, test orange, unused grey", fontsize=11)
    for protocol, axis in zip(("cross_session", "loso"), folds.subplots(1, 2, sharey=True)):
        draw_fold(features, protocol, axis)
    scores.suptitle("cross_session, SYNTHETIC twin", fontsize=11)
    draw_accuracies(features, scores.subplots())
    FILE.parent.mkdir(exist_ok=True)
    figure.savefig(FILE, dpi=110)


if __name__ == "__main__":
    main()
