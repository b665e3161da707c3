"""Networks on graphs larger than those they learned from, and how sure they are of copies."""
