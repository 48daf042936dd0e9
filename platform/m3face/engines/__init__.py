"""How one step runs: on plain torch or under DeepSpeed, alone or with other workers."""

from torch import nn

from m3face.config import TrainConfig
from m3face.engines.base import Batch, Engine, Losses, save_state
from m3face.engines.torch_engine import TorchEngine
from m3face.engines.world import World

__all__ = ["Batch", "Engine", "TorchEngine", "World", "make_engine", "save_state"]


def make_engine(module: nn.Module, losses: Losses, config: TrainConfig, *, device: str, world: World) -> Engine:
    """The engine that `config.engine` names; ConfigError where DeepSpeed is missing or cannot be built."""
    if config.engine == "torch":
        return TorchEngine(module, losses, config, device=device, world=world)
    from m3face.engines.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(module, losses, config, device=device, world=world)
