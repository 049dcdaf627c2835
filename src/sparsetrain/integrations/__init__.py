"""Callbacks for other people's training loops; each module needs its own library, the core none."""
