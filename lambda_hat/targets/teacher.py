"""The network that synthetic data follow."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from lambda_hat.config.schema import NonNegativeInt, schema
from lambda_hat.targets.base import MakeTruth, Truth, unflatten
from lambda_hat.targets.data import DEFAULT_INPUTS, DEFAULT_OUTPUTS
from lambda_hat.targets.mlp import MLP, Activation, Widths


@schema("lambda_hat.targets.mlp.Teacher")
class Teacher:
    """The network with random weights that synthetic data follow.

    Args:
        widths: Its hidden widths; null: the student's own architecture, so that the truth can be reached.
        activation: Null: the student's.
        seed: Of its weights.
    """

    widths: Widths | None = None
    activation: Activation | None = None
    seed: NonNegativeInt = 0

    def truth(self, student: MLP) -> MakeTruth:
        """What makes f for a number of inputs and outputs (null: 16 and 1)."""
        network = student
        if self.widths is not None:
            network = dataclasses.replace(student, depth=None, widths=self.widths, target_params=None)
        if self.activation is not None:
            network = dataclasses.replace(network, activation=self.activation)

        def make(num_inputs: int | None, num_outputs: int | None) -> Truth:
            p, q = num_inputs or DEFAULT_INPUTS, num_outputs or DEFAULT_OUTPUTS
            rng = np.random.default_rng(self.seed)
            parameters = unflatten(jnp.asarray(network.initial(rng, p, q)), network.shapes(p, q))
            return Truth(lambda inputs: np.asarray(network.network(parameters, inputs)), p, rng)

        return make
