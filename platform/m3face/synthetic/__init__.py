"""People who do not exist, rendered with exact labels: the training data of the tiny preset.

`make_sample(seed, index, size=...)` is a pure function; the same person returns with another `variant`.
"""

from m3face.synthetic.people import Look, Person, sample_attributes, sample_look, sample_person
from m3face.synthetic.render import Sample, make_sample, render

__all__ = [
    "Look",
    "Person",
    "Sample",
    "make_sample",
    "render",
    "sample_attributes",
    "sample_look",
    "sample_person",
]
