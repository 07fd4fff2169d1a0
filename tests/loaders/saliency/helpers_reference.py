"""Reference implementations of the estimators in plain NumPy, written for clarity, not speed."""

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph


def lab(rgb: np.ndarray) -> np.ndarray:
    """float64 [..., 3] of sRGB codes, 0 to 255."""
    codes = rgb / 255
    linear = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(
        [
            [0.4124564, 0.2126729, 0.0193339],
            [0.3575761, 0.7151522, 0.1191920],
            [0.1804375, 0.0721750, 0.9503041],
        ]
    )
    t = xyz / [0.95047, 1, 1.08883]
    f = np.where(t > 216 / 24389, np.cbrt(t), 841 / 108 * t + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -1)


def slic(colours: np.ndarray, down: int, across: int, pitch: float, m: float, rounds: int):
    """Labels before connectivity is enforced, and the centres they came from."""
    height, width = colours.shape[:2]
    centres = []
    for r in range(down):
        for c in range(across):
            y, x = int((r + 0.5) * height / down), int((c + 0.5) * width / across)
            near = [
                (gradient(colours, v, u), v, u)
                for v in range(max(y - 1, 1), min(y + 2, height - 1))
                for u in range(max(x - 1, 1), min(x + 2, width - 1))
            ]
            _, y, x = min(near) if near else (0, y, x)
            centres.append([*colours[y, x], y, x])
    centres = np.array(centres, float)
    ys, xs = np.mgrid[:height, :width]
    labels = np.zeros((height, width), int)
    for _ in range(rounds):
        nearest = np.full((height, width), np.inf)
        for k, (*colour, y, x) in enumerate(centres):
            window = (abs(ys - y) <= pitch) & (abs(xs - x) <= pitch)
            d = ((colours - colour) ** 2).sum(-1)
            d = d + ((ys - y) ** 2 + (xs - x) ** 2) * (m / pitch) ** 2
            closer = window & (d < nearest)
            nearest[closer], labels[closer] = d[closer], k
        for k in np.unique(labels):
            own = labels == k
            centres[k] = [*colours[own].mean(0), ys[own].mean(), xs[own].mean()]
    return labels


def gradient(colours: np.ndarray, y: int, x: int) -> float:
    side = colours[y, x + 1] - colours[y, x - 1]
    down = colours[y + 1, x] - colours[y - 1, x]
    return float((side**2).sum() + (down**2).sum())


def graph(image: np.ndarray, labels: np.ndarray, corners: bool = False):
    """Distances of colour and place, and adjacency with diagonal."""
    count = labels.max() + 1
    own = [labels == k for k in range(count)]
    c = lab(np.array([image[o].mean(0) for o in own]))
    middles = (np.mgrid[: labels.shape[0], : labels.shape[1]] + 0.5).transpose(1, 2, 0)
    p = np.array([middles[o].mean(0) for o in own]) / labels.shape
    near = np.eye(count, dtype=bool)
    pairs = [(labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])]
    if corners:
        pairs += [(labels[:-1, :-1], labels[1:, 1:]), (labels[:-1, 1:], labels[1:, :-1])]
    for a, b in pairs:
        near[a, b] = near[b, a] = True
    return euclid(c), euclid(p), near


def euclid(points: np.ndarray) -> np.ndarray:
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))


def band(labels: np.ndarray, width: int) -> np.ndarray:
    inner = labels[width:-width, width:-width]
    outer = np.ones(labels.shape, bool)
    if inner.size:
        outer[width:-width, width:-width] = False
    return np.isin(np.arange(labels.max() + 1), labels[outer])


def two_hops(near: np.ndarray) -> np.ndarray:
    return near.astype(int) @ near.astype(int) > 0


def scales(colour: np.ndarray, near: np.ndarray) -> tuple[float, float, float]:
    """clip, geoSigma, neiSigma."""
    off = ~np.eye(len(near), dtype=bool)
    m1 = np.where(near & off, colour, np.inf).min(1).mean()
    m2 = np.where(two_hops(near) & off, colour, np.inf).min(1).mean()
    edges = np.sort(colour[np.triu(near & off)])
    mt = edges[-max(1, round(len(edges) * 0.01)) :].mean()
    return m2, max(5, min(10, 3 * m1, mt / 10)), min(3 * m1, 0.2 * mt, 20)


def geodesic(colour: np.ndarray, near: np.ndarray, bd: np.ndarray, clip: float) -> np.ndarray:
    """Scipy drops edges that cost nothing: they get a floor."""
    linked = near | np.outer(bd, bd)
    cost = np.where(linked, np.maximum(colour - clip, 0) + 1e-9, 0)
    np.fill_diagonal(cost, 0)
    return csgraph.shortest_path(sparse.csr_matrix(cost), directed=False)


def cut_gaussian(d: np.ndarray, sigma: float) -> np.ndarray:
    return np.where(d <= 3 * sigma, np.exp(-(d**2) / (2 * sigma**2)), 0)


def minmax(v: np.ndarray) -> np.ndarray:
    return (v - v.min()) / (v.max() - v.min())


def rbd(image: np.ndarray, labels: np.ndarray, otsu) -> dict[str, np.ndarray]:
    """Every quantity on the way, by its name in the paper."""
    dcol, dpos, near = graph(image, labels)
    bd = band(labels, 8)
    clip, geo, nei = scales(dcol, near)
    dgeo = geodesic(dcol, near, bd, clip)
    s = cut_gaussian(dgeo, geo)
    con = s[:, bd].sum(1) / np.sqrt(s.sum(1))
    wbg = 1 - np.exp(-(con**2) / 2)
    wctr = minmax((dcol * cut_gaussian(dpos, 0.4)) @ wbg)
    wctr[wctr < otsu(wctr)] = 0
    w = np.where(two_hops(near) | np.outer(bd, bd), cut_gaussian(dcol, nei), 0) + 0.1 * near
    strong = np.where(con > 3, 1000, wbg)
    system = np.diag(w.sum(1)) - w + np.diag(5 * strong) + np.diag(wctr)
    return {"dgeo": dgeo, "con": con, "map": minmax(np.linalg.solve(system, wctr))}


def gs(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    dcol, dpos, near = graph(image, labels)
    n, at = len(near), np.flatnonzero(band(labels, 8))
    clip, _, _ = scales(dcol, near)
    g = dcol[np.ix_(at, at)] / (1 + 3 * dpos[np.ix_(at, at)])
    np.fill_diagonal(g, np.inf)
    g = np.sort(g, 1)[:, : min(round(n / 200 * 5), len(at) - 1)].mean(1)
    kept = at[minmax(g) <= 0.5] if g.max() - g.min() > 1 else at
    dgeo = geodesic(dcol, near, np.isin(np.arange(n), at), clip)
    cost = dgeo[kept].min(0)
    return np.minimum(cost / np.sort(cost)[-max(1, round(0.02 * n))], 1)


def mc(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """MC computed from the transition matrix itself."""
    dcol, _, near = graph(image, labels, corners=True)
    n = len(near)
    joined = near.copy()
    for a, b in [(labels[0], labels[-1]), (labels[:, 0], labels[:, -1])]:
        joined[a, b] = joined[b, a] = True
    edges = two_hops(joined) & ~np.eye(n, dtype=bool)
    low, high = dcol[edges].min(), dcol[edges].max()
    a = np.where(edges, np.exp(-10 * (dcol - low) / (high - low)) + 1e-5, 0) + np.eye(n)
    inside = a.sum(1) >= 1.1
    ring = band(labels, 1)
    e = ring & inside
    second = (near & e).any(1) & inside & ~ring
    if second.any() and (a * near)[np.ix_(e, second)].sum() <= 13:
        inside, e = inside & ~ring, second
    at = np.flatnonzero(inside)
    part = a[np.ix_(at, at)]
    degree = part.sum(1)
    q = part / (degree + part[:, e[at]].sum(1))[:, None]
    rest = np.eye(len(at)) - q
    y = minmax(np.linalg.solve(rest, np.ones(len(at))))
    if mc_score(y) >= 2:
        w = 1 / degree
        y = minmax(np.linalg.solve(rest, w / w.sum()))
    found = np.zeros(n)
    found[at] = y
    lonely = a.sum(1) < 1.1
    return np.where(lonely & (near & (found > 0.3)).any(1), 1, found)


def mc_score(y: np.ndarray) -> float:
    hist = np.histogram(y, 10, (0, 1))[0] / len(y)
    return sum(hist[j - 1] * min(j, 11 - j) for j in range(1, 11))
