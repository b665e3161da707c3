"""Which readout for my data? Networks, folds, statistics, and the baselines that they have to beat."""
