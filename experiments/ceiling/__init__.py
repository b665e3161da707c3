"""Networks trained on all graphs up to the ceiling of their readout, and judged on held-out graphs."""
