"""Presets: rows of numbers and locations. Nothing outside this package asks which row it is."""

from m3face.presets.rows import Preset, cached, get, weights_folder

__all__ = ["Preset", "cached", "get", "weights_folder"]
