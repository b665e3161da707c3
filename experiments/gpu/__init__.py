"""The first minutes on a GPU: what is right, what waits, and how fast it is, in one command."""
