"""Code shared by benchmarks/papers: runs at a budget, figures over seeds, claims, a chart."""

from patchmill.benchmarks.lib.papers.command import run
from patchmill.benchmarks.lib.papers.experiment import Experiment
from patchmill.benchmarks.lib.papers.paper import Budget, Claim, Paper, Rows

__all__ = ["Budget", "Claim", "Experiment", "Paper", "Rows", "run"]
