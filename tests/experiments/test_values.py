"""The benchmark of hard values: what it measures is what it says."""

import pytest
import torch

from experiments.speed import values


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
    monkeypatch.setattr("sys.argv", ["values", "--graphs", "3", "--features", "2", "--seconds", "0.001"])
    assert values.main() == code
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 2 * len(list(values.functions()))
    assert all(float(cell) > 0 for row in rows for cell in row.split("|")[3:-1])
    assert "the limit is" in printed
