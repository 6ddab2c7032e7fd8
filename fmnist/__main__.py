"""Start the `fmnist` command. The environment variables are settled before anything else is imported."""


def main() -> None:
    """Run the command, and end with its exit code."""
    from fmnist import chatter, environment

    environment.settle()
    chatter.silence()
    from fmnist import signals

    # Before the remaining imports, which take seconds.
    stop = signals.stop_on_signals()

    from fmnist.cli import app

    app.main(stop)


if __name__ == "__main__":
    main()
