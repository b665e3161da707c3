"""What is wrong with a fully connected layer on all node states, and what does averaging do about it?

Claim (Lin et al. 2014, "Network in network", sections 3.2 and 4.6, of images): a fully connected layer behind
the states of all places overfits; dropout helps some; global average pooling in its place has no parameters
and does not overfit. Of graphs there is more to say: such a layer reads the node states in the order of
storage, padded to the largest graph, so its answers depend on that order, while a readout keeps every bit.
All heads stand behind the same network, from the same weights, and are trained on the same folds.

Averaging is said to pay by the law Var(mean of m) = variance / m. Of m nodes drawn at random from n without
replacement the variance about the mean of all is S^2 (1 - m / n) / m, with S^2 = sum_i (x_i - mu)^2 / (n - 1)
(Cochran 1977, section 2). The nodes of one graph are no such draw from the nodes of all graphs.
"""
