"""lambda_hat: the local learning coefficient of trained models, by many samplers, with errors one can trust."""
