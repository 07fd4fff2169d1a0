"""Formulas for a cluster's training rate and bottleneck; nothing is measured here.

A step takes as long as the slowest of four resources, which work concurrently:

    store      sends every image of the step to the node that trains on it
    loaders    decode, and render views
    compute    forward, backward and optimiser of the ranks
    network    compute, plus the part of the gradient exchange that compute does not hide

Gradients are reduced as NCCL does: in a ring inside each node, then between nodes, where a tree of
messages sets the latency. The batch per rank is constant (weak scaling).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

LOADER, STORE, COMPUTE, NETWORK = LIMITS = ("loader", "store", "compute", "network")


@dataclass(frozen=True)
class Cluster:
    """Sizes in bytes, times in seconds, rates per second."""

    ranks: int  # per node
    loader: float  # rate of a node's loaders, in images
    batch: int  # images per rank and step
    step: float  # compute time of a step
    overlap: float  # share of the step that can hide the gradient exchange
    gradient: float  # size of a rank's gradients
    inside: float  # bandwidth between two ranks of a node, each way
    network: float  # bandwidth between a node and the others, each way
    latency: float  # of a message between two nodes
    store: float  # bandwidth of the store to all nodes
    link: float  # bandwidth of the store to one node
    image: float  # encoded size of an image


@dataclass(frozen=True)
class Prediction:
    nodes: int
    images_per_s: float
    limit: str  # the resource whose doubling would help most
    ceilings: dict[str, float]  # images per second if this resource were the only limit
    fed: float  # images per second and rank from loaders and store
    waiting: float  # share of a step spent waiting for gradients, when data is ready

    def as_json(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes,
            "images_per_s": round(self.images_per_s, 1),
            "of_linear": round(self.of_linear, 3),
            "limit": self.limit,
            "most": {name: round(rate, 1) for name, rate in self.ceilings.items()},
            "fed": round(self.fed, 1),
            "waiting": round(self.waiting, 3),
        }

    @property
    def of_linear(self) -> float:
        """Share of the rate of ranks that never wait."""
        return self.images_per_s / self.ceilings[COMPUTE]


def predict(cluster: Cluster, nodes: int) -> Prediction:
    exposed = exposed_exchange(cluster, nodes)
    ceilings = _ceilings(cluster, nodes)
    return Prediction(
        nodes,
        rate(cluster, nodes),
        limit(cluster, nodes),
        ceilings,
        min(ceilings[LOADER], ceilings[STORE]) / (nodes * cluster.ranks),
        exposed / (cluster.step + exposed),
    )


def exposed_exchange(cluster: Cluster, nodes: int) -> float:
    """Seconds of a step in which ranks wait for gradients."""
    return max(0.0, exchange(cluster, nodes) - cluster.overlap * cluster.step)


def rate(cluster: Cluster, nodes: int) -> float:
    """Images per second."""
    return min(_ceilings(cluster, nodes).values())


def limit(cluster: Cluster, nodes: int) -> str:
    """The resource whose doubling helps most; among equals, the one with the lowest ceiling."""
    ceilings = _ceilings(cluster, nodes)
    return max(LIMITS, key=lambda name: (rate(_doubled(cluster, name), nodes), -ceilings[name]))


def exchange(cluster: Cluster, nodes: int) -> float:
    """Seconds of an all-reduce of the gradients."""
    within = 2 * (cluster.ranks - 1) / cluster.ranks * cluster.gradient / cluster.inside
    between = 2 * (nodes - 1) / nodes * cluster.gradient / cluster.network
    return within + between + 2 * math.log2(nodes) * cluster.latency


def limit_changes(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The first prediction, and each whose limit differs from the one before."""
    pairs = zip([None, *predictions], predictions, strict=False)
    return [this for previous, this in pairs if previous is None or previous.limit != this.limit]


def _ceilings(cluster: Cluster, nodes: int) -> dict[str, float]:
    images = nodes * cluster.ranks * cluster.batch
    step = cluster.step + exposed_exchange(cluster, nodes)
    return {
        LOADER: nodes * cluster.loader,
        STORE: min(cluster.store, nodes * cluster.link) / cluster.image,
        COMPUTE: images / cluster.step,
        NETWORK: images / step,
    }


def _doubled(cluster: Cluster, limit: str) -> Cluster:
    """The cluster with twice as much of one resource."""
    if limit == LOADER:
        return replace(cluster, loader=2 * cluster.loader)
    if limit == STORE:
        return replace(cluster, store=2 * cluster.store, link=2 * cluster.link)
    if limit == COMPUTE:
        return replace(cluster, step=cluster.step / 2)
    return replace(
        cluster,
        inside=2 * cluster.inside,
        network=2 * cluster.network,
        latency=cluster.latency / 2,
    )
