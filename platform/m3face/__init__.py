"""m3face: words to label map and landmarks, to a face, to an edited face."""

__version__ = "0.1.0"
