"""How fast a cluster of so many nodes trains, and what it waits for: formulas, nothing measured.

A step is over when the slowest of four is done, which work at the same time:

    the store      sends every image of the step to the node that wants it, once in an epoch
    the loaders    decode, and make views
    the ranks      compute; and then wait for the rest of the exchange of gradients, of which
                   a share of the computing has hidden a part

Gradients are added up as NCCL does: in a ring inside each node, and then between nodes, where a
tree of messages gives the latency. Each rank has the same batch, however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

LOADER, STORE, COMPUTE, NETWORK = LIMITS = ("loader", "store", "compute", "network")


@dataclass(frozen=True)
class Cluster:
    """Sizes in bytes, times in seconds, rates in a second."""

    ranks: int  # of a node
    loader: float  # images that the loaders of a node make
    batch: int  # images of a rank in a step
    step: float  # that a rank computes
    overlap: float  # the share of that behind which gradients are exchanged
    gradient: float  # bytes of a rank's gradients
    inside: float  # bytes between two ranks of a node, each way
    network: float  # bytes between a node and the others, each way
    latency: float  # of a message between two nodes
    store: float  # bytes that the store sends, to all nodes
    link: float  # bytes that it sends to one node
    image: float  # bytes of an image


@dataclass(frozen=True)
class Prediction:
    nodes: int
    images_per_s: float
    limit: str  # that of which twice as much would help most
    most: dict[str, float]  # images a second, if there were only this limit
    fed: float  # images a second that loaders and store have for a rank
    waiting: float  # share of a step's time in which ranks wait for gradients, if data is there

    def as_json(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes,
            "images_per_s": round(self.images_per_s, 1),
            "of_linear": round(self.of_linear, 3),
            "limit": self.limit,
            "most": {name: round(it, 1) for name, it in self.most.items()},
            "fed": round(self.fed, 1),
            "waiting": round(self.waiting, 3),
        }

    @property
    def of_linear(self) -> float:
        """Of what ranks would do that wait for nothing."""
        return self.images_per_s / self.most[COMPUTE]


def predict(cluster: Cluster, nodes: int) -> Prediction:
    rest = unhidden(exchange(cluster, nodes), cluster.step, cluster.overlap)
    most = _most(cluster, nodes)
    return Prediction(
        nodes,
        rate(cluster, nodes),
        limit(cluster, nodes),
        most,
        min(most[LOADER], most[STORE]) / (nodes * cluster.ranks),
        rest / (cluster.step + rest),
    )


def unhidden(exchange: float, step: float, overlap: float) -> float:
    """Seconds of a step in which ranks wait for gradients."""
    return max(0.0, exchange - overlap * step)


def rate(cluster: Cluster, nodes: int) -> float:
    """Images a second."""
    return min(_most(cluster, nodes).values())


def limit(cluster: Cluster, nodes: int) -> str:
    most = _most(cluster, nodes)
    return max(LIMITS, key=lambda it: (rate(_doubled(cluster, it), nodes), -most[it]))


def exchange(cluster: Cluster, nodes: int) -> float:
    """Seconds in which the gradients of all ranks become their sum on all ranks."""
    within = 2 * (cluster.ranks - 1) / cluster.ranks * cluster.gradient / cluster.inside
    between = 2 * (nodes - 1) / nodes * cluster.gradient / cluster.network
    return within + between + 2 * math.log2(nodes) * cluster.latency


def turns(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The first, and each that has another limit than the one before."""
    pairs = zip([None, *predictions], predictions, strict=False)
    return [now for before, now in pairs if before is None or before.limit != now.limit]


def _most(cluster: Cluster, nodes: int) -> dict[str, float]:
    images = nodes * cluster.ranks * cluster.batch
    rest = unhidden(exchange(cluster, nodes), cluster.step, cluster.overlap)
    return {
        LOADER: nodes * cluster.loader,
        STORE: min(cluster.store, nodes * cluster.link) / cluster.image,
        COMPUTE: images / cluster.step,
        NETWORK: images / (cluster.step + rest),
    }


def _doubled(cluster: Cluster, what: str) -> Cluster:
    """With twice as much of one thing."""
    if what == LOADER:
        return replace(cluster, loader=2 * cluster.loader)
    if what == STORE:
        return replace(cluster, store=2 * cluster.store, link=2 * cluster.link)
    if what == COMPUTE:
        return replace(cluster, step=cluster.step / 2)
    return replace(
        cluster,
        inside=2 * cluster.inside,
        network=2 * cluster.network,
        latency=cluster.latency / 2,
    )
