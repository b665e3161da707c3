"""How the gradient of a loss spreads over the nodes, and where two labels meet.

Claim: average pooling is democratic and max pooling is winner-take-all (Zhou et al. 2016, section 2, on class
activation maps; Boureau et al. 2010). Behind a mean or a sum every node of a graph gets the same gradient, so
that two labels of one graph speak to all nodes, and pull against each other on all of them or on none. Behind
a max a channel trains its winners alone. Where one vector is pooled for both labels they fight over these
winners, some of which they pull together and others apart; where each label pools a map of its own, as in
"Network in network" (Lin et al. 2014), they miss each other.

The gradient is that with respect to the states in front of the readout (in front of the scores, where the
head makes maps), in networks without a ReLU there, in float64, on the graphs that are trained on. The *Gini
coefficient* of its norms r over the n nodes of a graph is sum_ij |r_i - r_j| / (2 (n - 1) sum_i r_i): 0 where
all nodes get the same, 1 where one gets all. Nodes that are alike by symmetry tie and share.
"""
