"""Features of a frozen prefix are computed once, and change nothing."""

import itertools

import numpy as np
import pytest
import torch

from bayesdf.errors import BayesdfError, BayesdfWarning
from bayesdf.inference import feature_cache
from bayesdf.models import Detector, priors
from tests.inference.convolutional import convolutional, noisy, pictures, short


def test_cached_features_give_the_same_posterior_as_running_the_prefix():
    model = Detector(convolutional(), {"3": priors.normal(0.1)})
    cached = short(freeze="prefix").fit(model, pictures())
    run = short(freeze="prefix", augment=lambda images, noise: images).fit(model, pictures())
    torch.testing.assert_close(cached.sampler.loc["3.weight"], run.sampler.loc["3.weight"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("disk", [True, False])
def test_features_beyond_memory_are_kept_on_disk_or_made_again(monkeypatch, disk):
    network = convolutional()
    fitted = short(freeze="prefix").fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    runs = []
    kept = feature_cache.TrainingBatches._compute_features

    def count(feed, views):
        runs.append(kept(feed, views))
        return runs[-1]

    monkeypatch.setattr(feature_cache.TrainingBatches, "_compute_features", count)
    monkeypatch.setattr(feature_cache, "CACHE_BYTES", 1)
    if not disk:
        monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    again = short(freeze="prefix").fit(Detector(network, {"3": priors.normal(0.1)}), pictures())
    assert (runs[0] is not None) == disk
    for name, value in fitted.draws(3)["posterior"].data_vars.items():
        np.testing.assert_allclose(again.draws(3)["posterior"][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("freeze", "room", "runs"), [(None, 1 << 30, 6), ("prefix", 1 << 30, 2), ("prefix", 1, 6)])
def test_validation_features_are_computed_once_where_the_prefix_is_frozen(monkeypatch, freeze, room, runs):
    model, train, validation = Detector(convolutional(), {"7": priors.normal(0.1)}), pictures(), pictures(32)
    monkeypatch.setattr(feature_cache, "CACHE_BYTES", room)
    asked, whole = [], feature_cache.batches

    def counted(dataset, *rest):
        for batch in whole(dataset, *rest):
            if dataset is validation:
                asked.append(len(batch[0]))
            yield batch

    monkeypatch.setattr(feature_cache, "batches", counted)
    fitted = short(freeze=freeze, epochs=3).fit(model, train, validation)
    assert len(asked) == runs  # 32 images in two batches, in each of three epochs or once
    assert fitted.sample_stats["validation_nll"].sizes["epoch"] == 3


def test_views_are_augmented_once_and_take_turns(monkeypatch):
    model = Detector(convolutional(), {"3": priors.normal(0.1)})
    times = itertools.count()

    def brighter(images, noise):
        return images + 0.1 * (next(times) // 3)  # 24 pictures are 3 batches: every view is brighter than the last

    kept = short(freeze="prefix", augment=brighter, views=2, epochs=4).fit(model, pictures())
    assert next(times) == 6  # no more images were augmented than those of two views
    seen = itertools.count()

    def turns(images, noise):
        return images + 0.1 * (next(seen) // 3 % 2)  # the same by hand: a view an epoch

    by_hand = short(freeze="prefix", augment=turns, epochs=4).fit(model, pictures())
    torch.testing.assert_close(kept.sampler.loc["3.weight"], by_hand.sampler.loc["3.weight"], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(feature_cache, "CACHE_BYTES", 1)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.warns(BayesdfWarning, match="new versions"):
        short(freeze="prefix", augment=brighter, views=2, epochs=4).fit(model, pictures())
    assert next(times) == 7 + 1 + 4 * 3  # no room, as the first batch shows: every epoch sees new versions


@pytest.mark.parametrize(
    "settings",
    [{"views": 0, "freeze": "prefix", "augment": noisy}, {"views": 2, "augment": noisy}, {"views": 2, "freeze": "all"}],
)
def test_views_need_a_frozen_prefix(settings):
    with pytest.raises(BayesdfError, match="views is"):
        short(**settings)
