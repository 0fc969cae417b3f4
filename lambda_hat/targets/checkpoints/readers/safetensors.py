"""Safetensors: names, dtypes, shapes and bytes."""

from lambda_hat.targets.checkpoints.arrays import Arrays, library


def read(path: str) -> Arrays:
    safetensors, numpy = library("safetensors", "safetensors", path), library("safetensors.numpy", "safetensors", path)
    try:
        return {(key,): array for key, array in numpy.load_file(path).items()}
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
