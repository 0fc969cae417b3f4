"""Sweeps from plan to table; the code is imported as ``lambda_hat.launch``, which no file of a user's can shadow."""

from pathlib import Path

if __name__ == "launch":  # the folder of a checkout; a wheel has the entry points there by themselves
    __path__.insert(0, str(Path(__file__).with_name("entry_points")))
