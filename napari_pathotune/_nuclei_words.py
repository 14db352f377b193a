"""Measurements in a pathologist's words, with their units."""

from __future__ import annotations

WORDS = {
    "class": "Class",
    "confidence": "Confidence",
    "area_um2": "Area (µm²)",
    "perimeter_um": "Perimeter (µm)",
    "major_um": "Long axis (µm)",
    "minor_um": "Short axis (µm)",
    "eccentricity": "Eccentricity",
    "orientation_deg": "Orientation (°)",
    "solidity": "Solidity",
    "haematoxylin_mean": "Haematoxylin density",
    "haematoxylin_std": "Haematoxylin, spread",
    "eosin_mean": "Eosin density",
    "eosin_std": "Eosin, spread",
    "dab_mean": "DAB density",
    "dab_std": "DAB, spread",
    "density_mean": "Optical density",
}
SPOKEN = ("area_um2", "major_um", "minor_um", "solidity", "haematoxylin_mean", "dab_mean")


def short(name: str) -> str:
    """Return a measurement's name for people."""
    return WORDS.get(name, name.replace("_um2", " (µm²)").replace("_um", " (µm)").replace("_", " "))


def number(value: float) -> str:
    """Return a number with three significant places: "12,300", "45.1", "0.123"."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 or value == 0 else f"{value:.3f}"


def spoken(name: str, value: float) -> str:
    """Return a measurement as it is read out: "area 45.1 µm²"."""
    words, _, unit = short(name).partition(" (")
    return f"{words[0].lower()}{words[1:]} {number(value)} {unit.rstrip(')')}".rstrip()


def told(values: dict[str, float | str]) -> str:
    """Return one nucleus in a line: class and confidence, then its main measurements."""
    parts = [f"{values['class']} {float(values['confidence']):.2f}"]
    for key in SPOKEN:
        value = values.get(key)
        if isinstance(value, float) and value == value:  # NaN: not measured
            parts.append(spoken(key, value))
    return ", ".join(parts)
