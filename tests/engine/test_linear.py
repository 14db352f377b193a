"""The probe is exact, updates by adding and subtracting, and never favours a big region."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from pathotune.events import PathotuneError
from pathotune.models.tuning import linear


def made(rng, n_classes=3, regions=4, tokens=60, dims=12):
    """Return features, classes and regions; regions of a class differ a little."""
    centres = rng.normal(0, 2, (n_classes, dims))
    x, c, r = [], [], []
    for k in range(n_classes):
        for i in range(regions):
            shift = rng.normal(0, 0.5, dims)
            x.append(centres[k] + shift + rng.normal(0, 1, (tokens, dims)))
            c += [k] * tokens
            r += [k * regions + i] * tokens
    return np.concatenate(x).astype(np.float32), np.array(c), np.array(r)


def stats_of(x, c, r, n_classes=3):
    stats = linear.RegionStats(n_classes, x.shape[1])
    for region in np.unique(r):
        stats.add(str(region), int(c[r == region][0]), x[r == region])
    return stats


def test_equals_textbook_lda():
    x, c, r = made(np.random.default_rng(0))
    head = stats_of(x, c, r).fit(
        linear.Config(smoothing=0.012, caution=0.0, temperature=1 / (1 + 45 / 4))
    )
    book = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.001, priors=np.full(3, 1 / 3)).fit(
        x, c
    )
    np.testing.assert_allclose(head.probs(x), book.predict_proba(x), atol=5e-3)


def test_adding_and_removing_leaves_no_trace():
    x, c, r = made(np.random.default_rng(1))
    stats = stats_of(x, c, r)
    before = stats.fit()
    stats.add("new", 1, x[:30] * 3)
    assert not np.allclose(stats.fit().weight, before.weight)
    stats.remove("new")
    after = stats.fit()
    np.testing.assert_allclose(after.weight, before.weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after.bias, before.bias, rtol=1e-4, atol=1e-5)
    stats.remove("never there")


def test_leaving_out_equals_never_seeing():
    x, c, r = made(np.random.default_rng(2))
    left = stats_of(x, c, r).fit(without=("0", "5"))
    keep = ~np.isin(r, [0, 5])
    never = stats_of(x[keep], c[keep], r[keep]).fit()
    np.testing.assert_allclose(left.weight, never.weight, rtol=1e-4, atol=1e-6)


def test_regions_and_classes_do_not_win_by_size():
    x, c, r = made(np.random.default_rng(3), n_classes=2)
    many = np.concatenate([np.flatnonzero(c == 0), np.tile(np.flatnonzero(c == 1), 50)])
    once = stats_of(x, c, r, 2).fit()
    often = stats_of(x[many], c[many], r[many], 2).fit()
    np.testing.assert_allclose(once.weight, often.weight, atol=1e-3)


def test_a_replaced_region_counts_once():
    x, c, r = made(np.random.default_rng(10))
    stats = stats_of(x, c, r)
    before = stats.fit()
    stats.add("0", 2, x[:5])
    assert stats.region_class["0"] == 2
    stats.add("0", 0, x[r == 0])
    assert len(stats) == 12
    np.testing.assert_allclose(stats.fit().weight, before.weight, rtol=1e-4, atol=1e-5)


def test_tile_logit_is_the_mean_of_its_tokens():
    x, c, r = made(np.random.default_rng(4))
    head = linear.fit(x, c, r, 3)
    np.testing.assert_allclose(head.logits(x).mean(0), head.logits(x.mean(0)), atol=1e-3)


def test_unmarked_class_is_never_chosen():
    x, c, r = made(np.random.default_rng(5))
    stats = stats_of(x[c != 1], c[c != 1], r[c != 1])
    probs = stats.fit().probs(x)
    assert stats.classes == (0, 2)
    assert probs[:, 1].max() == 0
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)


def test_one_class_is_explained():
    stats = linear.RegionStats(2, 3)
    stats.add("a", 0, np.ones((4, 3)))
    with pytest.raises(PathotuneError, match="two classes"):
        stats.fit()
    stats.add("b", 1, np.zeros((0, 3)))
    assert "b" not in stats


def test_wrong_shapes_are_refused():
    stats = linear.RegionStats(2, 3)
    with pytest.raises(ValueError, match=r"not \(n, 3\)"):
        stats.add("a", 0, np.ones((4, 5)))
    with pytest.raises(ValueError, match="class 2"):
        stats.add("a", 2, np.ones((4, 3)))


def test_folds_leave_out_each_region_once():
    x, c, r = made(np.random.default_rng(6), regions=13, tokens=3)
    stats = stats_of(x, c, r)
    folds = stats.folds()
    assert len(folds) == 10
    assert sorted(k for fold in folds for k in fold) == sorted(stats.region_class)
    assert stats.folds() == folds
    single = linear.RegionStats(3, 12)
    single.add("a", 0, x[:3])
    single.add("b", 1, x[-3:])
    assert single.folds() == []


def test_temperature_follows_held_out_regions():
    rng = np.random.default_rng(7)
    x, c, r = made(rng, regions=6)
    sure = linear.fit(x, c, r, 3)
    confused = linear.fit(x + rng.normal(0, 6, x.shape), c, r, 3)
    truth = np.eye(3)[c]
    for head, data in ((sure, x), (confused, x)):
        loss = -(truth * np.log(head.probs(data) + 1e-9)).sum(1).mean()
        assert loss < np.log(3)
    assert sure.temperature > 0
    few = np.isin(r % 6, [0, 1])
    assert linear.fit(x[few], c[few], r[few], 3).temperature == 1.0


def test_arrays_round_trip_and_damage_is_noticed():
    x, c, r = made(np.random.default_rng(8))
    head = linear.fit(x, c, r, 3)
    again = linear.LinearHead.from_arrays(head.to_arrays())
    np.testing.assert_allclose(again.probs(x), head.probs(x), atol=1e-6)
    with pytest.raises(PathotuneError, match="no linear probe"):
        linear.LinearHead.from_arrays({})
    arrays = head.to_arrays() | {"bias": np.zeros(7)}
    with pytest.raises(PathotuneError, match="damaged"):
        linear.LinearHead.from_arrays(arrays)


@pytest.mark.parametrize("tokens", [1, 2])
def test_a_single_token_a_class_is_enough(tokens):
    x, c, r = made(np.random.default_rng(9), regions=1, tokens=tokens)
    head = linear.fit(x, c, r, 3)
    assert (head.probs(x).argmax(1) == c).all()
