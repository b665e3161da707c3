"""The tables that are made by hand: what is measured is what they say."""

from contextlib import nullcontext

import pytest
import torch
import typer

from experiments.speed import training, values


def test_values_are_what_their_names_say():
    x = torch.randn(1000, 8)
    made = {name: make(x) for name, make in values.VALUES.items()}
    assert made["normal"] is x
    exponents = made["wide"].abs().log2()
    assert exponents.min() < -100
    assert exponents.max() > 100
    assert (made["subnormal"].abs() < torch.finfo(torch.float32).tiny).float().mean() > 0.99
    assert made["subnormal"].any()
    assert made["softmax weights"].sum(0).allclose(torch.ones(8))
    assert 0 < made["NaN"].isnan().sum() < 100
    assert 0 < made["infinity"].isinf().sum() < 100


@pytest.mark.parametrize(("limit", "code"), [(1e6, 0), (0.0, 1)])
def test_a_time_above_the_limit_is_an_error(limit, code, monkeypatch, capsys):
    monkeypatch.setattr(values, "LIMIT", limit)
    with pytest.raises(typer.Exit) as ended:
        values.main(graphs=3, features=2, seconds=0.001)
    assert ended.value.exit_code == code
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 2 * len(values.READOUTS)
    assert all(float(cell) > 0 for row in rows for cell in row.split("|")[3:-1])
    assert "the limit is" in printed


@pytest.mark.parametrize("kind", training.MODELS)
def test_steps_are_timed_with_and_without_exact_scatter(kind, monkeypatch, capsys):
    monkeypatch.setattr(training, "molecules", lambda graphs=4, of=training.molecules: of(graphs))
    monkeypatch.setattr(training, "EDGES", 1)
    training.main([kind], seconds=0, skip_large=True)
    *_, plain, exact, ratio, _ = capsys.readouterr().out.splitlines()[-1].split("|")
    assert float(ratio) == pytest.approx(float(exact) / float(plain), rel=0.01, abs=0.006)


def test_a_model_that_depends_on_the_order_is_not_timed(monkeypatch):
    monkeypatch.setattr(training, "exact_scatter", nullcontext)
    with pytest.raises(AssertionError, match="GIN: the output depends on the order of the edges"):
        training.check("GIN")
