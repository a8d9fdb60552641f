"""``python -m maskedflow`` is the ``maskedflow`` command."""

from maskedflow.cli import main

if __name__ == "__main__":
    main()
