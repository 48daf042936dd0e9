"""How one step runs."""

from m3face.engines.torch_engine import TorchEngine

__all__ = ["TorchEngine"]
