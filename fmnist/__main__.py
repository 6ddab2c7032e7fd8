"""Start the `fmnist` command. The environment variables are settled before anything else is imported."""

import gc


def main() -> None:
    """Run the command, and end with its exit code."""
    from fmnist import chatter, environment

    environment.settle()
    chatter.silence()
    from fmnist import signals

    # Before the remaining imports, which take seconds.
    stop = signals.stop_on_signals()

    from fmnist.cli import app

    try:
        app.main(stop)
    finally:
        # The last collection would look through all objects to free memory that the system takes back anyway.
        gc.freeze()


if __name__ == "__main__":
    main()
