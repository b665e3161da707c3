"""How fast are readouts, and what else could one take? `measure` says how it is found out."""
