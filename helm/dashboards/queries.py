"""PromQL of panels: metrics of the chosen release and catalogue, and what is asked of them."""

from dataclasses import dataclass
from typing import Final

_SCOPE: Final = ('namespace=~"$namespace"', 'catalogue=~"$catalogue"')


@dataclass(frozen=True)
class Query:
    """One PromQL expression and the words of its series in the legend."""

    expr: str
    legend: str = ""


def of(metric: str, *matchers: str) -> str:
    """The metric of the chosen release and catalogue.

    >>> of("tastemaker_gateway_empty_total", 'alias="champion"')
    'tastemaker_gateway_empty_total{namespace=~"$namespace",catalogue=~"$catalogue",alias="champion"}'
    """
    return f"{metric}{{{','.join((*_SCOPE, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """Its growth by second."""
    return f"rate({of(metric, *matchers)}[$__rate_interval])"


def total(by: str, metric: str, *matchers: str) -> str:
    """A counter's growth by second, summed by labels."""
    return f"sum by ({by}) ({rate(metric, *matchers)})"


def grown(by: str, metric: str, *matchers: str) -> str:
    """A counter's growth in the hour before, summed by labels."""
    return f"sum by ({by}) (increase({of(metric, *matchers)}[1h]))"


def largest(by: str, metric: str, *matchers: str) -> str:
    """The largest of a gauge over pods, by labels."""
    return f"max by ({by}) ({of(metric, *matchers)})"


def quantile(share: float, by: str, metric: str, *matchers: str) -> str:
    """A quantile of a histogram, by labels."""
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate(metric + '_bucket', *matchers)}))"
