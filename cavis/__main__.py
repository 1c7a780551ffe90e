"""``python -m cavis`` is ``cavis``."""

from cavis.cli import main

if __name__ == "__main__":
    main()
