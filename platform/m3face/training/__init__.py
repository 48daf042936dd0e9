"""When a step happens, what is kept, and how a stopped run goes on."""

from m3face.training.fit import draws_of_step, fit

__all__ = ["draws_of_step", "fit"]
