"""Every door names the keyword it expects, and the argument that is wrong."""

import pytest
import torch
from torch import nn

import readouts
from readouts import Accumulator, Segments, power_mean, readout, weighted_mean
from readouts.attribution import attention_weights, class_activation, contributions
from readouts.nn import (
    AttentionReadout,
    DeepSetsReadout,
    MaxReadout,
    MultiheadAttentionReadout,
    MultiReadout,
    PartialReadout,
    PowerMeanReadout,
    QuantileReadout,
    Set2SetReadout,
    SoftmaxReadout,
    SortReadout,
    SqueezeExcitation,
    SumReadout,
    VarReadout,
    WeightedMeanReadout,
    readout_resolver,
)

X, BATCH = torch.rand(4, 2), torch.tensor([0, 0, 1, 1])
FUNCTIONS = {
    "readout": lambda **k: readout(X, BATCH, **k),
    "median": lambda **k: readouts.median(X, BATCH, **k),
    "quantile": lambda **k: readouts.quantile(X, BATCH, 0.5, **k),
    "trimmed_mean": lambda **k: readouts.trimmed_mean(X, BATCH, 0.1, **k),
    "weighted_mean": lambda **k: weighted_mean(X, X, BATCH, **k),
    "softmax_mean": lambda **k: readouts.softmax_mean(X, X, BATCH, **k),
    "logsumexp": lambda **k: readouts.logsumexp(X, BATCH, **k),
    "power_mean": lambda **k: power_mean(X, 2.0, BATCH, **k),
    "moments": lambda **k: readouts.moments(X, BATCH, **k),
    "pool": lambda **k: readouts.global_add_pool(X, BATCH, **k),
    "contributions": lambda **k: contributions("sum", X, BATCH, **k),
    "attention_weights": lambda **k: attention_weights(SoftmaxReadout(), X, BATCH, **k),
    "segments": lambda **k: Segments.from_batch(BATCH, **k),
    "accumulator": lambda **k: Accumulator("sum", **k),
    "distributed": lambda **k: readouts.distributed.readout(X, BATCH, **k),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("word", ["dim_size", "batch_size", "num_graphs"])
def test_functions_expect_size(name, word):
    import readouts.distributed  # noqa: F401

    with pytest.raises(TypeError, match=f"{word}: expected the keyword 'size', got '{word}'"):
        FUNCTIONS[name](**{word: 2})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SumReadout()(X, BATCH, size=2), "size: expected the keyword 'dim_size', got 'size'"),
        (lambda: SumReadout()(X, batch=BATCH), "batch: expected the keyword 'index', got 'batch'"),
        (lambda: SqueezeExcitation(2)(X, BATCH, size=2), "size: expected the keyword 'batch_size'"),
        (lambda: readout(X, index=BATCH), "index: expected the keyword 'batch', got 'index'"),
        (lambda: readout(X, BATCH, aggr="sum"), "aggr: expected the keyword 'reduce', got 'aggr'"),
        (lambda: MaxReadout(fill_value=1), "fill_value: expected the keyword 'empty', got 'fill_value'"),
        (lambda: QuantileReadout(0.5, fill_value=1), "fill_value: expected the keyword 'empty'"),
        (lambda: MultiReadout(aggrs=["sum"]), "aggrs: expected the keyword 'reduce', got 'aggrs'"),
        (
            lambda: MultiReadout(["softmax"], aggrs_kwargs=[{}]),
            "aggrs_kwargs: expected no such keyword",
        ),
        (lambda: VarReadout(semi_grad=True), r"semi_grad: expected no such keyword \(gradients are complete"),
        (lambda: MultiheadAttentionReadout(4, num_seed_points=2), "num_seed_points: .* 'seeds'"),
        (lambda: AttentionReadout(gate=nn.Linear(2, 1)), "gate: expected the keyword 'gate_nn'"),
    ],
)
def test_words_of_others(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_what_is_the_same_elsewhere_is_accepted():
    assert readout(X, BATCH, "add").equal(readout(X, BATCH, "sum"))
    assert readout(X, BATCH, ("max", "add")).equal(readout(X, BATCH, ("max", "sum")))
    assert DeepSetsReadout(reduce="add")(X, BATCH).equal(SumReadout()(X, BATCH))
    assert contributions("add", X, BATCH).equal(X)
    total = Accumulator("add", 2)
    total.update(X, BATCH)
    assert total.result().equal(readout(X, BATCH, "sum"))
    head = nn.Linear(2, 3)
    assert class_activation(head, X, BATCH, "add").equal(class_activation(head, X, BATCH, "sum"))
    for module in (SumReadout(), SoftmaxReadout(), WeightedMeanReadout(nn.Softplus())):
        assert module(X, BATCH, max_num_elements=2).equal(module(X, BATCH))
    assert Set2SetReadout(2, 1, num_layers=3)(X, BATCH).shape == (2, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AttentionReadout(8), "gate_nn: expected a network such as .*, got int"),
        (lambda: AttentionReadout(None), "gate_nn: expected a network such as .*, got None"),
        (lambda: AttentionReadout(nn.Identity), "gate_nn: expected a network .*, got the class Identity"),
        (lambda: AttentionReadout(nn.Linear(2, 1), 8), "nn: expected a network .*, got int"),
        (lambda: DeepSetsReadout(8), "local_nn: expected a network .*, got int"),
        (lambda: DeepSetsReadout(None, "relu"), "global_nn: expected a network .*, got str"),
        (lambda: WeightedMeanReadout([1]), "gate: expected a network .*, got list"),
        (lambda: SortReadout(2.5), "k: expected an integer, got float"),
        (lambda: Set2SetReadout("8", 2), "in_channels: expected an integer, got str"),
        (lambda: Set2SetReadout(8, 0), "processing_steps: expected at least 1, got 0"),
        (lambda: Set2SetReadout(8, 1, 0), "num_layers: expected at least 1, got 0"),
        (lambda: MultiheadAttentionReadout(8, 0), "heads: expected at least 1, got 0"),
        (lambda: MultiheadAttentionReadout(8, 2, 1.5), "seeds: expected an integer, got float"),
        (lambda: SoftmaxReadout("1"), "t: expected a number, got str"),
        (lambda: PowerMeanReadout([1.0]), "p: expected a number, got list"),
        (lambda: PowerMeanReadout(2.0, True, 1.5), "channels: expected an integer, got float"),
        (lambda: PowerMeanReadout(2.0, clamp_min="0"), "clamp_min: expected a number, got str"),
        (lambda: PowerMeanReadout(2.0, clamp_max=1e-9), "clamp_max: expected at least clamp_min"),
        (lambda: PartialReadout("mean", "half"), "share: expected a number, got str"),
        (lambda: PartialReadout("mean", count=1.5), "count: expected an integer, got float"),
        (lambda: SqueezeExcitation(8.0), "channels: expected an integer, got float"),
        (lambda: readout_resolver("mul"), "readout: expected one of .*, got 'mul'; for products"),
        (lambda: SumReadout()([1.0], BATCH), "x: expected a tensor, got list"),
        (lambda: SumReadout()(X, [0, 0, 1, 1]), "batch: expected a tensor, got list"),
        (lambda: SumReadout()(X, ptr=[0, 4]), "ptr: expected a tensor, got list"),
        (lambda: SqueezeExcitation(2)([1.0]), "x: expected a tensor, got list"),
        (lambda: WeightedMeanReadout()(X, BATCH, weight=[1.0]), "weight: expected a tensor, got list"),
        (lambda: power_mean(X, [1.0]), "p: expected a number, got list"),
        (lambda: power_mean(X, torch.ones(3)), r"p: expected one number, or .*, \(2,\), got shape \(3,\)"),
        (lambda: power_mean(X[:, :1], torch.ones(3)), r"p: expected one number, .* got shape \(3,\)"),
        (lambda: AttentionReadout(nn.Linear(3, 1))(X, BATCH), r"gate_nn: expected a network for x \(4, 2\)"),
        (lambda: AttentionReadout(nn.Linear(2, 3))(X, BATCH), r"gate_nn: expected one for each of"),
        (lambda: DeepSetsReadout(nn.Linear(3, 1))(X, BATCH), r"local_nn: expected a network for x \(4, 2\)"),
        (lambda: DeepSetsReadout(None, nn.Linear(3, 1))(X, BATCH), r"global_nn: expected a network for x"),
        (lambda: DeepSetsReadout(nn.Flatten(0))(X, BATCH), r"local_nn: .* one row for each of 4 nodes"),
        (lambda: SqueezeExcitation(2, squeeze="moment")(X, BATCH), "squeeze_channels: expected 8, .* 2"),
        (lambda: attention_weights("softmax", X), "readout: expected a module of `readouts.nn`, got str"),
        (lambda: attention_weights(SumReadout(), X), "readout: expected a readout that weights its nodes"),
    ],
)  # fmt: skip
def test_arguments_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
