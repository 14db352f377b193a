"""All docks together: opened once, raised by name, gone without a trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_pathotune._docks import NAMES, Docks, full_name
from napari_pathotune._session import Session

ROOT = Path(__file__).parents[2]


def test_all_open_as_tabs_in_the_order_of_the_work(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    docks = Docks.of(viewer)
    assert Docks.of(viewer) is docks
    docks.open_all()
    found = [docks.find(n) for n in NAMES]
    assert [d.windowTitle() for d in found] == ["Slide", "Annotate", "Tune", "Classify", "Nuclei"]
    window = found[0].window()
    assert set(window.tabifiedDockWidgets(found[0])) == set(found[1:])
    docks.open_all()  # twice is once
    assert [docks.find(n) for n in NAMES] == found
    assert set(viewer.window.dock_widgets) >= {full_name(n) for n in NAMES}


def test_a_dock_is_raised_when_the_session_asks(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    docks = Docks.of(viewer)
    docks.open_all()
    Session.of(viewer).dock_wanted.emit("tune")
    assert not docks.find("tune").visibleRegion().isEmpty()
    assert docks.find("slide").visibleRegion().isEmpty()


def test_a_closed_dock_opens_again(make_napari_viewer):
    viewer = make_napari_viewer()
    docks = Docks.of(viewer)
    docks.open_all()
    viewer.window.remove_dock_widget(docks.find("classify").widget())
    assert docks.find("classify") is None
    Session.of(viewer).dock_wanted.emit("classify")
    assert docks.find("classify") is not None


def test_the_menu_entry_brings_the_others(make_napari_viewer, wait_until):
    from napari_pathotune._contributions import SlideStart

    viewer = make_napari_viewer(show=True)
    viewer.window.add_dock_widget(SlideStart(viewer), name=full_name("slide"))
    docks = Docks.of(viewer)
    wait_until(lambda: all(docks.find(n) is not None for n in NAMES))


def test_nothing_keeps_a_closed_window(make_napari_viewer, quick, patches, wait_until):
    viewer = make_napari_viewer()
    Docks.of(viewer).open_all()
    session = Session.of(viewer)
    session.open(patches)
    wait_until(lambda: session.tissue is not None)
    session.set_mpp(1.0)
    wait_until(lambda: session.loop.plan is not None)
    viewer.close()
    assert session.jobs.closed  # the fixture fails if the window lives on


@pytest.mark.parametrize("size", [(1366, 768)])
def test_docks_leave_the_screen_to_the_map(make_napari_viewer, size):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(*size)
    docks = Docks.of(viewer)
    docks.open_all()
    for name in NAMES:
        widget = docks.find(name).widget()
        assert widget.minimumSizeHint().width() <= 330, name
        assert widget.minimumSizeHint().height() <= 640, name


def test_opening_every_dock_costs_no_heavy_library():
    code = (
        "import sys, napari\n"
        "import napari_pathotune\n"
        "viewer = napari.Viewer(show=False)\n"
        "from napari_pathotune._docks import Docks\n"
        "Docks.of(viewer).open_all()\n"
        "heavy = {'torch', 'timm', 'sklearn', 'pyqtgraph', 'onnxruntime'} & set(sys.modules)\n"
        "viewer.close()\n"
        "assert not heavy, heavy\n"
    )
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=120)


@pytest.mark.parametrize("name", ["Slide", "Annotate", "Tune", "Classify", "Nuclei"])
def test_napari_itself_can_open_each_dock(make_napari_viewer, npe2pm, name, wait_until):
    from npe2 import PluginManifest

    npe2pm.register(PluginManifest.from_file(ROOT / "napari_pathotune" / "napari.yaml"))
    viewer = make_napari_viewer(show=name == "Slide")
    viewer.window.add_plugin_dock_widget("napari-pathotune", name)
    docks = Docks.of(viewer)
    assert docks.find(name.lower()) is not None
    if name == "Slide":  # it brings the others
        wait_until(lambda: all(docks.find(n) is not None for n in NAMES))
    assert len(viewer.window.dock_widgets) == (len(NAMES) if name == "Slide" else 1)
