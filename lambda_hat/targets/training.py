"""How a network is trained before it is sampled around. The numerics are in minimum.py."""

from typing import Literal

from lambda_hat.config.schema import Dtype, NonNegativeInt, PositiveFloat, PositiveInt, schema


@schema("lambda_hat.targets.training.Training")
class Training:
    """Gradient steps (optax) from random weights, then a polish (L-BFGS, full batch, float64) to a minimum.

    Args:
        optimizer: Of the gradient steps; ``momentum`` is sgd with momentum 0.9.
        learning_rate: At the first step.
        schedule: ``constant``, or ``cosine``: down to 0 at the last step.
        steps: Gradient steps.
        batch_size: Rows per step, drawn with replacement; null, or n and beyond: all rows.
        polish_steps: The most iterations of the polish; 0: none.
        gradient_tolerance: The polish ends once the norm of grad L_n is below this.
        dtype: Of the gradient steps, and of the w0 and data that are kept. A float32 target is for float32 runs.
        seed: Of the first weights and of the batches.
    """

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd", "momentum"] = "adam"
    learning_rate: PositiveFloat = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    steps: NonNegativeInt = 2000
    batch_size: PositiveInt | None = 128
    polish_steps: NonNegativeInt = 10_000
    gradient_tolerance: PositiveFloat = 1e-6
    dtype: Dtype = "float64"
    seed: NonNegativeInt = 0
