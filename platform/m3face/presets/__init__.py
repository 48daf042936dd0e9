"""Presets: rows of numbers and locations. Nothing outside this package asks which row it is."""

from m3face.presets.rows import Preset, get, weights_folder

__all__ = ["Preset", "get", "weights_folder"]
