"""`python -m managed` is the command line."""

from __future__ import annotations

from managed.cli import main

if __name__ == "__main__":
    main()
