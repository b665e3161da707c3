"""One file a way of computing the operators of `readouts.ops`; all of them give the same bits."""
