"""The readouts as functions, one family per module; `readouts` exports them."""
