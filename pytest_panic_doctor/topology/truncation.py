"""The scale from which on a point cloud has no homology left, proved for each cloud, and a filtration that ends there.

A Vietoris-Rips computation may stop at the enclosing radius, where the complex is a cone. The last class of H1 and H2
has died long before (captions: at 1.14, with an enclosing radius of 1.30), and most simplices lie between the two. What
lets the computation stop earlier is a proof that nothing is born in between, and that takes far less time than it
saves (benchmarks/README.md).

**Lemma.** Let X be a flag complex whose vertices are ordered such that a cone comes first. If for each later vertex v
the link of v among the vertices before it has no reduced homology in degrees below k, and is not empty, then X has no
reduced homology in degrees up to k. *Proof.* Attaching v glues a cone along that link L. In the Mayer-Vietoris sequence
H_i(before) + 0 -> H_i(with v) -> H_{i-1}(L) both outer terms vanish for i <= k.

**One test for every scale.** Let K_t have the pairs at most t apart as edges, and let vertices and t run over
[begin, end). Order the vertices by distance from some apex w that is there at `begin`. At each t those with
d(w, v) <= t are a cone over w, and come first. So only a vertex v with d(w, v) > t needs a look, which is while
entry(v) <= t < d(w, v). Its link at t consists of the u before v with max(entry(u), d(u, v)) <= t: a flag complex whose
vertices enter at times, as before, of one degree less. In degree 0 it must be connected at every t: each vertex, when
it enters, touches one that is connected already.

**Theorem.** If K_t has no reduced homology up to degree k for all t >= T, then lowering to T the distances above T from
any one point c changes no bar of H0 ... Hk. *Proof.* Below T both filtrations are one. From T on the first has no
reduced homology up to degree k, and the second is a cone over c. So the two persistence modules are isomorphic. The
enclosing radius of the lowered distances is T, which is where every engine stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pytest_panic_doctor.topology.cloud import Filtration

Times = NDArray[np.float32]
Vertices = NDArray[np.intp]

FEWEST = 150
"""Points below which computing takes less time than proving."""

APEXES, CANDIDATES = 4, 64
"""Apexes that are tried in a link, and vertices from which they are chosen."""

TESTS = 100
"""Graphs tested, for each point, after which the search rests on what is proved; captions need about 30."""

STEP = 1e-3
"""How far the scale may be from the least that can be proved, in parts of the enclosing radius."""


@dataclass(frozen=True, slots=True)
class Link:
    """A flag complex over scales t in [begin, end): vertex `vertices[i]` is there from t = `entry[i]` >= `begin` on."""

    vertices: Vertices
    entry: Times
    begin: np.float32
    end: np.float32


@dataclass(slots=True)
class Proof:
    """Tests that hold for every scale at once. All of them compare distances and never add, so none of them rounds."""

    apart: Filtration
    mean: Times = field(init=False)
    tests: int = 0

    def __post_init__(self) -> None:
        """Central points are the promising apexes."""
        self.mean = self.apart.mean(axis=1)

    def acyclic(self, link: Link, degree: int) -> bool:
        """Whether reduced homology up to `degree` is proved to vanish at every t of the link. False proves nothing."""
        seen = (link.entry < link.end).nonzero()[0]
        link = Link(link.vertices[seen], link.entry[seen], link.begin, link.end)
        first = (link.entry <= link.begin).nonzero()[0]
        if not len(first) or degree < 0:
            return bool(len(first))
        if degree == 0:
            return self.connected(link, first)
        if len(first) > CANDIDATES:
            first = first[np.argsort(self.mean[link.vertices[first]], kind="stable")[:CANDIDATES]]
        rows = self.apart[link.vertices[first, None], link.vertices]
        late = (rows > link.entry).sum(axis=1)
        return any(
            all(self.acyclic(each, degree - 1) for each in self.links(link, rows[apex]))
            for apex in np.argsort(late, kind="stable")[:APEXES]
        )

    def links(self, link: Link, row: Times) -> Iterator[Link]:
        """The links of the vertices outside the cone of an apex, at distances `row` from it; the farthest first."""
        order = np.argsort(row, kind="stable")
        vertices, entry, row = link.vertices[order], link.entry[order], row[order]
        for place in (row > entry).nonzero()[0][::-1]:
            begin, before = entry[place], vertices[:place]
            times = np.maximum(np.maximum(entry[:place], begin), self.apart[vertices[place], before])
            yield Link(before, times, begin, min(link.end, row[place]))

    def connected(self, link: Link, first: Vertices) -> bool:
        """Whether the graph is connected at every t; `first` are the places of the vertices that are there at `begin`.

        A vertex joins where, at its entry, it has an edge to one that was there and has joined.
        """
        self.tests += 1
        vertices, entry = link.vertices, link.entry
        root = first[np.argmin(self.mean[vertices[first]])]
        touched = self.apart[vertices[root], vertices] <= entry
        fresh, left = touched.nonzero()[0], (~touched).nonzero()[0]
        while len(left):
            when = entry[left, None]
            near = self.apart[vertices[left, None], vertices[fresh]] <= when
            joins = (near & (entry[fresh] <= when)).any(axis=1)
            if not joins.any():
                return False
            fresh, left = left[joins], left[~joins]
        return True


def acyclic_scale(apart: Filtration, degree: int) -> tuple[int, np.float32]:
    """(c, T): the point with the least eccentricity, and a scale at most that, such that for every t >= T the complex
    has no reduced homology up to `degree`.

    Vertices outside the cone of c are proved to attach without a trace, the farthest first, each with the least T that
    it needs, which those before it keep: what is proved for all t >= T holds for a larger T. So the search may stop at
    any vertex, and T is then its distance from c.
    """
    centre = int(np.argmin(apart.max(axis=1)))
    row = apart[centre]
    order = np.argsort(row, kind="stable")
    proof = Proof(apart)
    scale, step = np.float32(0), np.float32(STEP) * row.max()
    for place in range(len(order) - 1, 0, -1):
        upper = row[order[place]]
        if upper <= scale:
            break
        if proof.tests > TESTS * len(order):
            return centre, upper
        scale = least(proof, order[place], order[:place], scale, upper, step, degree)
    return centre, scale


def least(
    proof: Proof, vertex: np.intp, before: Vertices, lower: np.float32, upper: np.float32, step: np.float32, degree: int
) -> np.float32:
    """The least T from `lower` on, to within `step`, such that attaching `vertex` at no t in [T, `upper`) is proved to
    add homology up to `degree`."""
    apart = proof.apart[vertex, before]
    tried, proved = lower, upper
    while True:
        if proof.acyclic(Link(before, np.maximum(apart, tried), tried, upper), degree - 1):
            proved = tried
        else:
            lower = tried
        tried = (lower + proved) / np.float32(2)
        if proved - lower <= step or not lower < tried < proved:
            return proved


def end_early(apart: Filtration, max_dim: int) -> None:
    """Lower the distances from one point, in place, so that the enclosing radius is the scale that can be proved.

    The bars of H0 … H`max_dim` stay what they are: see the theorem above. Small clouds are left alone.
    """
    if len(apart) < FEWEST:
        return
    centre, scale = acyclic_scale(apart, max_dim)
    np.minimum(apart[centre], scale, out=apart[centre])
    apart[:, centre] = apart[centre]
