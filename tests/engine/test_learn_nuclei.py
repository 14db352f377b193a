"""Nuclei learnt without outlines: what is asked of each part, and a whole small learning."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from safetensors.numpy import save_file
from scipy import ndimage

from pathotune import cli
from pathotune.events import NucleiJudged, PathotuneError, drain
from pathotune.nuclei.scores import scores
from pathotune.nuclei.stains import Stains
from pathotune.nuclei.synth.masks import Sizes
from pathotune.nuclei.unpaired import guard, pairs, saved, state
from pathotune.nuclei.unpaired.adversarial import COPY, TRANSLATE, TranslationStage
from pathotune.nuclei.unpaired.augment import Adaptive
from pathotune.nuclei.unpaired.dense import separate, targets
from pathotune.nuclei.unpaired.estimate import Estimate, estimate_from, estimate_nuclei
from pathotune.nuclei.unpaired.learn import learn_nuclei, preview
from pathotune.nuclei.unpaired.losses import Weights, nuclei_loss
from pathotune.nuclei.unpaired.reader import Reader
from pathotune.nuclei.unpaired.rendered import RenderedStage
from pathotune.nuclei.unpaired.settings import Settings
from pathotune.slides.geometry import Region
from pathotune.slides.slide import open_slide

SMALL = Settings(
    tile_px=64, batch=2, micro=1, steps=4, judge_every=2, judged=1, warm=1, translating=2, second=2
)
STAINS = Stains((0.65, 0.704, 0.286), (0.072, 0.99, 0.105), True)


@pytest.fixture(scope="module")
def seen():
    """An estimate whose real fields are painted ones."""
    plain = Estimate(STAINS, Sizes(), ())
    data = pairs.batch(plain, 256, 2, (5,), recolour=0.0)
    return Estimate(STAINS, Sizes(), tuple(pairs.unscaled(p) for p in data.painted), seen=99)


@pytest.fixture
def slide(tmp_path, seen):
    path = tmp_path / "slide.tif"
    row = np.concatenate(seen.fields, 1)
    tifffile.imwrite(path, row, photometric="rgb")
    with open_slide(path, mpp=0.5) as opened:
        yield opened


def small_reader():
    torch.manual_seed(3)
    return Reader((8, 8, 8, 16, 16), 8)


def stage(seen, settings=SMALL):
    return TranslationStage(small_reader(), seen, settings)


def copies(network):
    return [p.detach().clone() for p in network.parameters()]


def changed(network, before):
    return any(not torch.equal(a, b) for a, b in zip(network.parameters(), before, strict=True))


def graded(network):
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def run(job):
    for _ in job:
        pass


# dense maps and back


def test_targets_and_back_give_the_same_nuclei(seen):
    truth = pairs.batch(seen, 128, 1, (1,), painted=False).instances[0]
    maps = targets(truth)
    assert maps.min() >= -1 and maps[1].max() == 1
    found = separate(maps[0], maps[1], 4)
    assert scores(found.labels, truth)["pq"] > 0.9
    assert len(found.confidence) == found.labels.max()


def test_touching_nuclei_are_two_and_small_ones_keep_their_piece():
    yy, xx = np.mgrid[:40, :40]
    truth = np.zeros((40, 40), np.int32)
    truth[(yy - 20) ** 2 + (xx - 12) ** 2 <= 64] = 1
    truth[((yy - 20) ** 2 + (xx - 27) ** 2 <= 64) & (truth == 0)] = 2
    truth[2:5, 2:5] = 3
    maps = targets(truth, np.array([True, False, True]))
    assert set(np.unique(maps[2])) == {-1, 0, 1} and maps[2][20, 12] == 1
    assert separate(maps[0], maps[1], 4).labels.max() == 3
    assert separate(maps[0], maps[1], 20).labels.max() == 2
    flat = np.zeros((40, 40), np.float32)
    assert separate(flat, flat, 4).labels.max() == 0
    pale = np.where(truth == 3, np.float32(0.2), np.float32(0))  # no seed, still a nucleus
    assert separate((truth == 3).astype(np.float32), pale, 4).labels.max() == 1


# what is learnt from


def test_batches_depend_on_their_key_alone(seen):
    one, two = (pairs.batch(seen, 64, 2, (0, 1, 5)) for _ in range(2))
    other = pairs.batch(seen, 64, 2, (0, 1, 6))
    assert np.array_equal(one.painted, two.painted) and np.array_equal(one.wanted, two.wanted)
    assert not np.array_equal(one.painted, other.painted)
    assert one.masks.min() >= -1 and one.masks.max() <= 1
    again = pairs.scaled(pairs.unscaled(one.painted[0]))
    assert np.abs(again - one.painted[0]).max() < 0.005


def test_outlined_tissue_smaller_than_a_field_is_mirrored():
    labels = np.zeros((40, 90), np.int32)
    labels[10:20, 10:20] = 1
    pixels = np.full((40, 90, 3), 200, np.uint8)
    data = pairs.annotated([(pixels, labels)], 64, 3, (0,))
    assert data.painted.shape == (3, 3, 64, 64) and not data.drawn
    assert set(np.unique(data.wanted[:, 2])) == {-1}  # nobody said which line a curve


def test_size_and_density_are_estimated_from_painted_tissue():
    sizes = Sizes(diameter_um=8.0, per_mm2=2000.0, lined=0.0)
    plain = Estimate(STAINS, sizes, ())
    rng = np.random.default_rng(0)
    from pathotune.nuclei.synth.masks import pseudo_mask
    from pathotune.nuclei.synth.renderer import Look, render

    look = Look(nucleus=(0.6, 0.7), pale=(0, 0), gaps=(0, 0), cytoplasm=(0, 0.05), ghosts=(0, 0))
    fields = [render(pseudo_mask(rng, 256, plain.mpp, sizes), STAINS, rng, look) for _ in range(4)]
    found = estimate_from(fields)
    assert found.seen > 50
    assert abs(found.sizes.diameter_um / 8.0 - 1) < 0.2
    assert abs(found.sizes.per_mm2 / 2000 - 1) < 0.3
    blank = estimate_from([np.full((256, 256, 3), 245, np.uint8)])
    assert blank.seen == 0 and len(blank.notes) == 2
    assert blank.corrected(9.0, 500.0).sizes.diameter_um == 9.0


def test_fields_come_from_the_region(slide):
    found = estimate_nuclei(slide, region=Region(256, 0, 256, 256))
    assert len(found.fields) == 1
    assert np.array_equal(found.fields[0], slide.read(Region(256, 0, 256, 256)))
    with pytest.raises(PathotuneError, match="beside the slide"):
        estimate_nuclei(slide, region=Region(9000, 0, 10, 10))


# who is changed by what


def test_joint_step_changes_all_four(seen):
    s = stage(seen, SMALL)
    s.step = SMALL.warm
    assert s.part == TRANSLATE
    nets = [*s.nets.pupils, *s.nets.judges]
    before = [copies(n) for n in nets]
    run(s.advance())
    assert all(changed(n, b) for n, b in zip(nets, before, strict=True))
    assert {"gan_g", "gan_s", "cycle_x", "cycle_y", "nuclei", "critic_mask"} <= set(s.parts)


def test_learning_the_formula_changes_the_painter_alone(seen):
    s = stage(seen)
    assert s.part == COPY
    others = [s.nets.reader.network, *s.nets.judges]
    before, own = [copies(n) for n in others], copies(s.nets.painter.network)
    run(s.advance())
    assert changed(s.nets.painter.network, own)
    assert not any(changed(n, b) for n, b in zip(others, before, strict=True))


def test_nuclei_loss_reaches_reader_and_painter(seen):
    s = stage(seen)
    data = pairs.batch(seen, 64, 2, (4,), painted=False)
    made = s.nets.painter.network(torch.from_numpy(data.masks), torch.randn(2, 64))
    nuclei_loss(s.nets.reader.network(made)[1], torch.from_numpy(data.wanted)).backward()
    assert graded(s.nets.reader.network) and graded(s.nets.painter.network)
    assert not any(graded(j) for j in s.nets.judges)


def test_critics_learn_from_things_made_but_do_not_change_their_makers(seen):
    s = stage(seen)
    x = y = torch.randn(2, 3, 64, 64)
    made, read = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    s._critics(x, y, made, read, torch.Generator().manual_seed(0), 1.0)
    assert all(graded(j) for j in s.nets.judges)
    assert not any(graded(p) for p in s.nets.pupils)
    assert "steepness" in s.parts  # at step 0, then every 16th
    s.step, s.parts = 1, {}
    s._critics(x, y, made, read, torch.Generator().manual_seed(0), 1.0)
    assert "steepness" not in s.parts


def test_weights_are_those_of_the_method(seen):
    assert (Weights().cycle, Weights().nuclei, Weights().steepness) == (10, 6, 1)
    plain = stage(seen)
    double = TranslationStage(small_reader(), seen, SMALL, Weights(20, 12))
    for s in (plain, double):
        s.step = 1
        s.gradients(2, (0, 1, 2, 3), 1.0)
    for name in ("cycle_x", "cycle_y", "nuclei"):
        assert double.parts[name] == pytest.approx(2 * plain.parts[name], rel=1e-4)
    assert double.parts["gan_g"] == pytest.approx(plain.parts["gan_g"], rel=1e-4)


def test_style_matters_and_fields_may_have_other_sides(seen):
    s = stage(seen)
    torch.manual_seed(0)
    mask = torch.from_numpy(pairs.batch(seen, 128, 1, (1,), painted=False).masks)
    with torch.no_grad():
        many = s.nets.painter.network(mask.repeat(8, 1, 1, 1), torch.randn(8, 64))
    assert many.shape == (8, 3, 128, 128)
    assert guard.change(many.numpy()) > 1e-4
    assert guard.change(np.repeat(many[:1].numpy(), 8, 0)) < 1e-6


def test_second_part_begins_with_a_reader_that_knows_nothing(seen):
    s = stage(seen)
    for _ in range(SMALL.warm + SMALL.translating):
        run(s.advance())
    grown = copies(s.nets.reader.network)
    painter = copies(s.nets.painter.network)
    s._fresh()
    assert changed(s.nets.reader.network, grown) and not changed(s.nets.painter.network, painter)
    assert not s.optimisers["reader"].state
    s._apply(s.part, [])
    rates = {k: o.param_groups[0]["lr"] for k, o in s.optimisers.items()}
    assert rates["painter"] == pytest.approx(rates["mask"] / 4)


def test_changes_grow_with_a_critic_that_is_too_sure():
    adaptive = Adaptive()
    chance = torch.Generator().manual_seed(0)
    fields = torch.rand(4, 3, 32, 32) * 2 - 1
    assert torch.equal(adaptive.change(fields, chance), fields)
    for _ in range(400):
        adaptive.follow(torch.ones(32))
    assert adaptive.p == pytest.approx(0.64)
    grown = adaptive.p
    assert adaptive.follow(torch.tensor([1.0, -1.0])) < grown
    fields.requires_grad_(True)
    out = adaptive.change(fields, chance)
    assert not torch.equal(out, fields) and out.shape == fields.shape
    out.sum().backward()
    assert fields.grad.abs().sum() > 0


# the guard


def test_painter_that_invents_nuclei_is_refused():
    yy, xx = np.mgrid[:96, :96]
    truth = np.zeros((96, 96), np.int32)
    truth[(yy - 24) ** 2 + (xx - 24) ** 2 <= 100] = 1
    other = (yy - 70) ** 2 + (xx - 70) ** 2 <= 100

    def painted(where):
        h = ndimage.gaussian_filter(np.where(where, 0.7, 0.05), 0.7)
        od = h[..., None] * np.array(STAINS.haematoxylin) + 0.2 * np.array(STAINS.eosin)
        return pairs.scaled((255 * 10**-od).astype(np.uint8))

    honest = guard.alignment([(painted(truth > 0), truth)], STAINS, 0.5)
    assert honest.good and honest.contrast > 0.5 and honest.outside == 0
    liar = guard.alignment([(painted((truth > 0) | other), truth)], STAINS, 0.5)
    assert not liar.good and liar.outside > 0.8 and "where there should be none" in liar.words()
    blind = guard.alignment([(painted(np.zeros_like(other)), truth)], STAINS, 0.5)
    assert not blind.good and "hardly differs" in blind.words()
    assert not guard.alignment([(painted(other), np.zeros_like(truth))], STAINS, 0.5).good


def test_formula_paints_inside_masks_only(seen):
    data = pairs.batch(seen, 128, 6, (2,))
    fields = list(zip(data.painted, data.instances, strict=True))
    assert guard.alignment(fields, STAINS, 0.5).good


def test_agreement_is_the_mean_dice_of_pairs():
    a, b = np.zeros((4, 4), int), np.zeros((4, 4), int)
    a[:2], b[1:3] = 1, 2
    assert guard.agreement([a, a]) == 1
    assert guard.agreement([a, b]) == pytest.approx(0.5)
    assert guard.agreement([np.zeros_like(a)] * 2) == 1


# a whole learning


def states(found):
    return {k: np.asarray(v) for k, v in found.arrays.items()}


def test_stopped_and_taken_up_gives_the_same_numbers(slide, seen, tmp_path):
    settings = replace(SMALL, steps=2, adversarial=True, judge_every=3)
    whole, parted = tmp_path / "whole.safetensors", tmp_path / "parted.safetensors"
    events = []
    told = drain(learn_nuclei(slide, whole, settings, estimate=seen), events.append)
    assert {e.stage for e in events if isinstance(e, NucleiJudged)} == {"rendered", "translated"}
    part = tmp_path / "parted.safetensors.part"
    for stop_after in (5, 9):  # in the first stage, and in a later one
        job = learn_nuclei(slide, parted, settings, estimate=seen)
        for _ in range(stop_after):
            next(job)
        job.close()
        assert part.exists() and not parted.exists()
    again = drain(learn_nuclei(slide, parted, settings, estimate=seen), events.append)
    assert any("Taken up" in getattr(e, "text", "") for e in events)
    assert not part.exists()
    assert again["agreement"] == told["agreement"] and again["stage"] == told["stage"]
    a, b = states(saved.load(whole)), states(saved.load(parted))
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_a_painter_that_is_refused_leaves_the_first_segmenter(slide, seen, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "alignment", lambda *_: guard.Alignment(0.5, 0.9))
    plain = replace(SMALL, steps=2)
    first, both = tmp_path / "first.safetensors", tmp_path / "both.safetensors"
    drain(learn_nuclei(slide, first, plain, estimate=seen))
    notes = []
    told = drain(
        learn_nuclei(slide, both, replace(plain, adversarial=True), estimate=seen), notes.append
    )
    assert told["stage"] == "rendered" and "90%" in told["refused"]
    assert any("painter is not used" in getattr(n, "text", "") for n in notes)
    a, b = states(saved.load(first)), states(saved.load(both))
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_other_settings_do_not_take_up(tmp_path):
    path = tmp_path / "x.part"
    network = small_reader()
    optimiser = torch.optim.Adam(network.parameters())
    state.save(path, "one", {"n": 1}, state.gather({"r": network}, {"o": optimiser}))
    assert state.load(path, "two") is None
    about, tensors = state.load(path, "one")
    assert about == {"n": 1}
    fresh = Reader((8, 8, 8, 16, 16), 8)
    state.scatter(tensors, {"r": fresh}, {"o": torch.optim.Adam(fresh.parameters())})
    assert not changed(fresh, copies(network))
    path.write_bytes(path.read_bytes()[:100])
    assert state.load(path, "one") is None


def test_preview_shows_real_and_painted(seen):
    shown = preview(seen, 2, 64)
    assert [what for what, _, _ in shown] == ["real", "painted"] * 2
    assert all(p.shape == (64, 64, 3) and p.dtype == np.uint8 for _, p, _ in shown)
    assert shown[1][2].max() > 0 and shown[0][2].max() == 0


def test_foreign_and_damaged_files_are_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": np.zeros(3)}, foreign)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for path in (foreign, torn):
        with pytest.raises(PathotuneError, match="not a nucleus segmenter"):
            saved.load(path)
    with pytest.raises(PathotuneError, match="no file"):
        saved.load(tmp_path / "none.safetensors")
    good = saved.save(tmp_path / "good.safetensors", small_reader(), 0.5, {})
    assert saved.load(good).key() == saved.load(good).key()
    found = saved.load(good)
    del found.arrays["out.bias"]
    with pytest.raises(PathotuneError, match="damaged"):
        found.reader()


def test_command_line_learns_and_segments_with_it(slide, tmp_path, capsys):
    out, nuclei = tmp_path / "mine.safetensors", tmp_path / "n.parquet"
    common = [str(slide.path), "--mpp", "0.5", "--json"]
    assert cli.main(["learn-nuclei", *common, "--out", str(out), "--minutes", "0.005"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stage"] == "rendered" and told["steps"] > 0
    assert 5 < told["estimate"]["diameter_um"] < 12
    args = ["segment", *common, "--segmenter", str(out), "--out", str(nuclei), "--tissue", "off"]
    assert cli.main(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["segmenter"].startswith("learnt-")
    assert cli.main([*args[:4], "--json", "--segmenter", "nobody", "--out", str(nuclei)]) == 2


def test_small_learning_reads_painted_nuclei(seen):
    settings = Settings(tile_px=64, batch=4, micro=4, judged=3, rate=2e-3)
    torch.manual_seed(0)
    s = RenderedStage(Reader((16, 24, 32, 48, 64), 24), seen, settings)
    before = s.judge()["score"]
    for _ in range(60):
        run(s.advance())
    assert s.judge()["dice_same"] > 0.6 and s.judge()["score"] > before + 0.2
