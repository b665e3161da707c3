"""The subcommands of `readouts`: `add_arguments` declares the options of one, `run` returns its exit code."""
