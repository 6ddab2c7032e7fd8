"""`python -m fmnist` is the `fmnist` command."""

from fmnist.cli import main

if __name__ == "__main__":
    main()
