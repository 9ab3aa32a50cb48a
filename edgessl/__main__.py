"""``python -m edgessl``."""

from edgessl.cli.main import main

if __name__ == "__main__":
    main()
