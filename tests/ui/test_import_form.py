"""A weight file is taken from the Slide dock, or refused there in words."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt

from napari_pathotune._backbone_picker import HERE, terms
from napari_pathotune._slide_dock import SlideDock
from pathotune.models import cards
from pathotune.models.importing import Looked


@pytest.fixture
def dock(quick, window, qtbot):
    viewer, _session = window
    dock = SlideDock(viewer)
    dock.resize(320, 640)
    qtbot.addWidget(dock)
    dock.show()
    dock.pages.setCurrentIndex(1)
    dock.network.expand(animate=False)
    return dock


@pytest.fixture
def weights(tmp_path):
    """Return a file with the weights of a small transformer that no card knows."""
    from safetensors.torch import save_file

    from pathotune.models._torchvision import import_timm

    small = {"patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 1, "num_classes": 0}
    network = import_timm().create_model("vit_tiny_patch16_224", **small)
    path = tmp_path / "ours.safetensors"
    save_file(network.state_dict(), path)
    return path


def looked(tmp_path, *card_ids):
    words = "a vision transformer of 24 blocks, 1024 wide, patches of 16 px"
    return Looked(tmp_path / "pytorch_model.bin", 1213.0, words, card_ids, None)


def test_networks_stand_under_headings_that_cannot_be_chosen(dock):
    box = dock.picker.box
    texts = [box.itemText(i) for i in range(box.count())]
    assert texts[0] == HERE and "embedded" in texts[1]
    enabled = [
        bool(box.model().flags(box.model().index(i, 0)) & Qt.ItemFlag.ItemIsEnabled)
        for i in range(box.count())
    ]
    assert not enabled[0] and all(e == bool(box.itemData(i)) for i, e in enumerate(enabled))
    shown = {box.itemData(i) for i in range(box.count())} - {None}
    assert shown == set(cards.cards())
    chosen = []
    dock.picker.chosen.connect(chosen.append)
    box.activated.emit(0)
    assert not chosen


def test_a_card_says_gate_licence_and_whether_it_is_here():
    told = terms(cards.card("uni"))
    assert "CC-BY-NC-ND-4.0" in told and "access must be asked for" in told
    assert "needs a download of 1,213 MB" in told
    assert "is not on this computer" in terms(cards.card("pathoduet-he"))


def test_a_file_of_ones_own_is_asked_for_what_only_the_user_knows(dock, weights, wait_until):
    form = dock.picker.form
    form.look(weights)
    wait_until(lambda: form.isVisible())
    assert form.holds.text().startswith("It holds a vision transformer of 2 blocks, 64 wide")
    assert form.own.isVisible() and not form.use.isEnabled()
    form.name.setText("Ours")
    assert "µm/px" in form.why.text() and form.use.toolTip() == form.why.text()
    form.mpp.setValue(0.5)
    assert "pixels" in form.why.text()
    assert not form.numbers.isVisible()
    form.norm.setCurrentIndex(form.norm.findData("numbers"))
    assert form.numbers.isVisible() and "three means" in form.why.text()
    form.numbers.setText("0.7 0.5 0.6 0.2 0.3 many")
    form.licence.setText("own work")
    form.use.click()
    assert "six numbers" in form.why.text() and form.isVisible()
    form.licence.clear()
    form.norm.setCurrentIndex(form.norm.findData("imagenet"))
    assert "licence" in form.why.text()
    form.licence.setText("own work")
    assert form.use.isEnabled() and not form.why.isVisible()
    assert dock.minimumSizeHint().width() <= 320
    form.use.click()
    wait_until(lambda: dock.session.card_id == "ours")
    assert not form.isVisible() and dock.picker.box.currentData() == "ours"
    assert cards.card("ours").parts[0].mean == (0.485, 0.456, 0.406)


def test_a_known_model_needs_no_typing(dock, tmp_path):
    form = dock.picker.form
    form.show_found(looked(tmp_path, "uni"))
    assert form.which.currentData() == "uni" and form.use.isEnabled()
    assert not form.own.isVisible() and "access" in form.terms.text()
    form.show_found(looked(tmp_path, "uni", "phikon-v2"))
    assert not form.use.isEnabled() and form.why.text() == "Choose which model it is."
    form.stop.click()
    assert not form.isVisible() and form.looked is None


def test_a_network_of_no_hub_says_how_to_get_it(dock):
    dock._on_card("pathoduet-he")
    assert "Use a weight file" in dock.notice.text and "github.com" in dock.notice.text
    assert dock.session.card_id == "colour"


def test_a_file_that_could_run_code_is_refused_in_the_dock(dock, tmp_path, wait_until):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04.")
    dock.picker.form.look(path)
    wait_until(lambda: dock.notice.isVisible())
    assert "foreign code" in dock.notice.text and not dock.picker.form.isVisible()
