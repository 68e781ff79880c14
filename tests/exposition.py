"""What Prometheus would read of the metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """The values of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value_in(samples: Samples, name: str, **labels: object) -> float:
    """The value of `zaqar_NAME` with exactly these labels; 0 for one that is not there."""
    wanted = frozenset((label, str(text)) for label, text in labels.items())
    return samples.get((f'zaqar_{name}', wanted), 0)
