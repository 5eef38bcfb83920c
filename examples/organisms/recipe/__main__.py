"""Run the recipe's command line."""

from .cli import main

raise SystemExit(main())
