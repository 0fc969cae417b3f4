"""After how long a wait counts as one that never ends."""

# Far beyond what a loaded machine takes: it tells a hang, never how fast something is.
HANG = 900.0
