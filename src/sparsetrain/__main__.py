"""`python -m sparsetrain` is the command `sparsetrain`."""

from .cli import main

raise SystemExit(main())
