"""``python -m launch.worker``, as a driver of 31848a6 that is still running starts its local workers."""

import sys

from lambda_hat.launch.local.worker import main

if __name__ == "__main__":
    main(sys.argv[1:])
