"""One way of training for all experiments: sets on the device, networks, goals, and the loop over epochs."""
