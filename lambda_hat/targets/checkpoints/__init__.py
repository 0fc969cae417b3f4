"""Checkpoints of a training: which there are, and their arrays by name."""

from lambda_hat.targets.checkpoints.arrays import CheckpointError, StillWritten
from lambda_hat.targets.checkpoints.listing import Checkpoint, Checkpoints, checkpoints

__all__ = ["Checkpoint", "CheckpointError", "Checkpoints", "StillWritten", "checkpoints"]
