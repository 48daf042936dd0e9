"""Metrics, and one table over held-out people. What a metric judges with are stages."""

from m3face.evaluation.metrics import Rate, landmark_error, mean_iou, points_on_map, rate
from m3face.faces.anatomy import anatomy_faults

__all__ = ["Rate", "anatomy_faults", "landmark_error", "mean_iou", "points_on_map", "rate"]
