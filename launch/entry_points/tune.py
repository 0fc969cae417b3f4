"""``python -m launch.tune``."""

from lambda_hat.launch.tune import main

if __name__ == "__main__":
    main()
