"""The `fmnist` command: the environment is settled before anything else is imported."""


def main() -> None:
    """Run the command, and end with its exit code."""
    from fmnist import chatter, environment

    environment.settle()
    chatter.silence()
    from fmnist import signals

    # The rest of the imports takes a while.
    stop = signals.stop_on_signals()

    from fmnist.cli import app

    app.main(stop)


if __name__ == "__main__":
    main()
