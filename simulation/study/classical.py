"""The classical line: extremely randomised trees on hand-made features of the same labelled windows, pooled in one place.

Source: Geurts, Ernst, Wehenkel 2006, "Extremely randomized trees"; features as in Lara and Labrador 2013, "A survey on human activity
recognition using wearable sensors", table 3 (time and frequency domain), no more of them than a channel needs.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier

from clmm_core.data.fleet import device_windows
from clmm_core.data.labels import draw_labelled
from clmm_core.data.windows import DeviceWindows
from clmm_core.models.config import ModelConfig
from clmm_core.report.metrics import counts_as_arrays
from clmm_core.report.records import Embedding, RunRecord, SubjectRecord
from clmm_core.seeds import derive_seed
from clmm_core.training.device_tensors import NO_CLASS
from clmm_core.training.evaluate import evaluated_rows, smoothed_counts
from server.evaluation import group_of
from server.federation import begin
from server.hosts import Hosts
from server.model_card import model_card
from server.results import new_folder
from server.run import Run
from server.run_config import RunConfig, Value

NUM_TREES = 500
NUM_FREQUENCIES = 8
"""Magnitudes of the spectrum, from the lowest frequency above 0."""


def train_extra_trees(hosts: Hosts, config: RunConfig, values: Mapping[str, Value]) -> None:
    """Draw the split and the labels as a federated run does, train the trees on them, and leave a results folder."""
    folder, info = new_folder(config, values)
    try:
        run = begin(hosts, config, info, folder, lambda _: None)
        since_s = time.monotonic()
        trees, num_features = _fit(run)
        evaluated = (_evaluated(trees, run, device) for device in run.directory.devices)
        subjects = tuple(subject for subject in evaluated if subject is not None)
        run.ended("evaluate", since_s, num_devices=len(subjects))
        facts: dict[str, int | str] = {"classifier": "extra-trees", "num_trees": NUM_TREES, "num_features": num_features}
        size = sum(tree.tree_.node_count for tree in trees.estimators_)
        card = replace(model_card(run), architecture=facts, num_parameters=size, flops_a_window=0)
        record = RunRecord(
            info=info,
            split=run.split,
            rounds=tuple(run.rounds),
            subjects=subjects,
            embedding=Embedding(),
            quality={},
            card=card,
            notes=tuple(run.notes),
        )
    except BaseException:
        folder.discard()
        raise
    folder.write_results(record)
    folder.finish()


def features_of(windows: DeviceWindows, model: ModelConfig) -> NDArray[np.float32]:
    """Return `[windows, features]`: a dozen statistics and a few spectral magnitudes a channel; zeros where a modality is missing."""
    parts = []
    for shape in model.modalities:
        nothing = np.zeros((len(windows), shape.channels, shape.time_steps), np.float32)
        parts.append(_channel_features(windows.streams.get(shape.name, nothing)))
    return np.concatenate(parts, axis=1)


def _channel_features(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `[windows, channels * features]` of `[windows, channels, time]`."""
    quartiles = np.quantile(samples, [0.25, 0.5, 0.75], axis=2)
    centred = samples - samples.mean(axis=2, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, axis=2))[:, :, 1 : 1 + NUM_FREQUENCIES] / samples.shape[2]
    steps = np.diff(samples, axis=2)
    quarters = [quarter.mean(axis=2) for quarter in np.array_split(samples, 4, axis=2)]
    statistics = [samples.mean(axis=2), samples.std(axis=2), samples.min(axis=2), samples.max(axis=2), *quartiles]
    statistics += [np.abs(steps).mean(axis=2), steps.std(axis=2), *quarters]
    stacked = np.concatenate([np.stack(statistics, axis=2), spectrum], axis=2)
    return stacked.reshape(len(samples), -1).astype(np.float32)


def _fit(run: Run) -> tuple[ExtraTreesClassifier, int]:
    features, labels = [], []
    for device in run.split.labelled:
        windows = device_windows(run.config.data, device)
        rows, _ = draw_labelled(windows, run.split.classes, run.config.labels)
        features.append(features_of(windows, run.model)[rows])
        labels.append(windows.labels[rows])
    trees = ExtraTreesClassifier(NUM_TREES, random_state=derive_seed(run.config.seed, "extra-trees") % 2**32)
    return trees.fit(np.concatenate(features), np.concatenate(labels)), features[0].shape[1]


def _evaluated(trees: ExtraTreesClassifier, run: Run, device: str) -> SubjectRecord | None:
    windows = device_windows(run.config.data, device)
    classes = run.split.classes
    rows = evaluated_rows(windows, classes, run.config.labels if device in run.split.labelled else None)
    if not len(rows):
        return None
    probabilities = np.zeros((len(windows), len(classes)))  # a class without a label is never said
    known = [classes.index(name) for name in trees.classes_]
    looked_at = np.arange(len(windows)) if run.config.smooth_s else rows
    probabilities[np.ix_(looked_at, known)] = trees.predict_proba(features_of(windows, run.model)[looked_at])
    truth = np.array([classes.index(label) if label in classes else NO_CLASS for label in windows.labels])
    return SubjectRecord(
        subject=device,
        group=group_of(device, run.split),
        modalities=tuple(windows.streams),
        counts=counts_as_arrays(smoothed_counts(probabilities, truth, windows, rows, run.config.smooth_s), len(classes)),
    )
