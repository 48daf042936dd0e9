"""What is learned: one small class an objective, from batch to loss. No optimizer, no device, no Ray."""

from m3face.tasks.base import NEEDS, Context, Draw, Task
from m3face.tasks.table import make_task

__all__ = ["NEEDS", "Context", "Draw", "Task", "make_task"]
