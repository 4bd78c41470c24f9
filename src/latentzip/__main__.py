"""``python -m latentzip`` is ``codec-cli``."""

from .cli import main

raise SystemExit(main())
