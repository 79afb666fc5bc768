"""Procedural unit meshes: primitives, surfaces of revolution, superquadrics and noisy blobs.

Every mesh fits in the cube [-0.5, 0.5]^3 with z up, so that an instance's scale is its size in metres. A vertex is
eight floats: position (3), normal (3), texture coordinate (2). A texture coordinate of -10 selects box mapping in the
shader.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

BOX_MAPPED = -10.0
_BLOB_SEED = 20


def _grid_triangles(rows: int, cols: int) -> npt.NDArray[np.int64]:
    """Return vertex indices, shape (2 * (rows - 1) * (cols - 1) * 3,), of a row-major grid."""
    row, col = np.meshgrid(np.arange(rows - 1), np.arange(cols - 1), indexing="ij")
    corner = (row * cols + col).ravel()
    quads = np.stack([corner, corner + 1, corner + cols + 1, corner, corner + cols + 1, corner + cols], axis=1)
    return quads.ravel()


def _surface(position: npt.NDArray[np.float64], u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> FloatArray:
    """Return the triangles of a sampled surface (rows, cols, 3), with normals from central differences."""
    along_col = np.gradient(position, axis=1)
    if np.allclose(position[:, 0], position[:, -1], atol=1e-6):  # closed: both sides of the seam need the same normal
        along_col[:, 0] = along_col[:, -1] = (position[:, 1] - position[:, -2]) / 2
    normal = np.cross(along_col, np.gradient(position, axis=0))
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    normal = np.where(length > 1e-12, normal / np.maximum(length, 1e-12), np.sign(position) * [0.0, 0.0, 1.0])
    vertices = np.concatenate([position, normal, u[..., None], v[..., None]], axis=2).reshape(-1, 8)
    picked = vertices[_grid_triangles(*position.shape[:2])]
    return np.ascontiguousarray(picked, dtype=np.float32)


def _flat(triangles: npt.NDArray[np.float64]) -> FloatArray:
    """Return box-mapped vertices with face normals for triangles (n, 3, 3)."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normals = np.repeat(normal[:, None], 3, axis=1)
    uv = np.full((*triangles.shape[:2], 2), BOX_MAPPED)
    return np.concatenate([triangles, normals, uv], axis=2).reshape(-1, 8).astype(np.float32)


def box() -> FloatArray:
    """Return the unit box: 36 vertices."""
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            a, b = np.eye(3)[(axis + 1) % 3] / 2, np.eye(3)[(axis + 2) % 3] / 2
            centre = np.eye(3)[axis] * sign / 2
            if sign < 0:
                a, b = b, a
            p, q, r, s = centre - a - b, centre + a - b, centre + a + b, centre - a + b
            faces += [[p, q, r], [p, r, s]]
    return _flat(np.array(faces))


def wedge() -> FloatArray:
    """Return a ramp that rises along +x: half a box."""
    h = 0.5
    a, b, c = np.array([-h, -h, -h]), np.array([h, -h, -h]), np.array([h, -h, h])
    y = np.array([0.0, 1.0, 0.0])
    triangles = [[a, b, c], [a + y, c + y, b + y]]
    for p, q in ((a, c), (c, b), (b, a)):
        triangles += [[p, q, q + y], [p, q + y, p + y]]
    return _flat(np.array(triangles))


def revolve(profile: list[tuple[float, float]], segments: int = 20, sharp: bool = False) -> FloatArray:
    """Return a surface of revolution of (radius, z) points, bottom to top; ``sharp`` keeps the profile's corners."""
    points = np.array(profile, dtype=np.float64)
    if not sharp:
        return _revolve_smooth(points, segments)
    pieces = [_revolve_smooth(points[i : i + 2], segments) for i in range(len(points) - 1)]
    return np.concatenate(pieces)


def _revolve_smooth(points: npt.NDArray[np.float64], segments: int) -> FloatArray:
    angle = np.linspace(0.0, 2 * np.pi, segments + 1)
    radius, z = np.maximum(points[:, 0], 1e-5)[:, None], points[:, 1][:, None]
    position = np.stack([radius * np.cos(angle), radius * np.sin(angle), z + 0 * angle], axis=2)
    u = np.broadcast_to(angle / (2 * np.pi), position.shape[:2])
    v = np.broadcast_to(z + 0.5, position.shape[:2])
    return _surface(position, u, v)


def superquadric(e1: float, e2: float, rows: int = 13, cols: int = 20) -> FloatArray:
    """Return a superquadric with exponents (north-south, east-west) as in Barr, 1981; (1, 1) is the sphere."""
    lat = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    lon = np.linspace(-np.pi, np.pi, cols + 1)[None]

    def power(x: npt.NDArray[np.float64], e: float) -> npt.NDArray[np.float64]:
        return np.sign(x) * np.abs(x) ** e

    ring = power(np.maximum(np.cos(lat), 1e-4), e1)
    x, y = ring * power(np.cos(lon), e2), ring * power(np.sin(lon), e2)
    z = power(np.sin(lat), e1) + 0 * lon
    u, v = np.broadcast_arrays((lon + np.pi) / (2 * np.pi), (lat + np.pi / 2) / np.pi)
    return _surface(np.stack([x, y, z], axis=2) / 2, u, v)


def blob(seed: int, roughness: float) -> FloatArray:
    """Return a sphere deformed by a few random waves."""
    rng = np.random.default_rng([_BLOB_SEED, seed])
    lat = np.linspace(-np.pi / 2, np.pi / 2, 14)[:, None]
    lon = np.linspace(-np.pi, np.pi, 23)[None]
    sphere = np.stack(np.broadcast_arrays(np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=2)
    radius = np.ones(sphere.shape[:2])
    for _ in range(6):
        wave = rng.normal(0.0, 2.2, 3)
        radius += roughness * rng.uniform(0.3, 1.0) * np.sin(sphere @ wave + rng.uniform(0, 2 * np.pi))
    position = sphere * radius[..., None]
    position /= 2 * np.abs(position).max(axis=(0, 1))
    u, v = np.broadcast_arrays((lon + np.pi) / (2 * np.pi), (lat + np.pi / 2) / np.pi)
    return _surface(position, u, v)


def torus(tube: float = 0.12) -> FloatArray:
    """Return a ring in the xy plane with the given tube radius (z spans two tube radii)."""
    around = np.linspace(0.0, 2 * np.pi, 21)[:, None]
    across = np.linspace(0.0, -2 * np.pi, 9)[None]
    radius = 0.5 - tube + tube * np.cos(across)
    position = np.stack(
        np.broadcast_arrays(radius * np.cos(around), radius * np.sin(around), tube * np.sin(across)), axis=2
    )
    u, v = np.broadcast_arrays(around / (2 * np.pi), -across / (2 * np.pi))
    return _surface(position, u, v)


def curtain(folds: float, cols: int = 41) -> FloatArray:
    """Return a hanging sheet with folds; thin along y."""
    x = np.linspace(-0.5, 0.5, cols)[None]
    z = np.linspace(-0.5, 0.5, 3)[:, None]
    y = 0.5 * np.sin(x * folds * 2 * np.pi) * (1.0 - 0.3 * (z + 0.5))
    position = np.stack(np.broadcast_arrays(x, y, z), axis=2)
    u, v = np.broadcast_arrays(x + 0.5, z + 0.5)
    return _surface(position, u, v)


def _arc(r0: float, z0: float, r1: float, z1: float, n: int = 6) -> list[tuple[float, float]]:
    """Return a quarter of an ellipse from (r0, z0) to (r1, z1) that leaves horizontally."""
    t = np.linspace(0.0, np.pi / 2, n)
    return [(r0 + (r1 - r0) * float(np.sin(a)), z0 + (z1 - z0) * (1.0 - float(np.cos(a)))) for a in t]


_CAN = [(0.0, -0.5), (0.5, -0.5), (0.5, 0.5), (0.0, 0.5)]
_MUG = [(0.0, -0.5), (0.5, -0.5), (0.5, 0.5), (0.44, 0.5), (0.44, -0.4), (0.0, -0.4)]
_BOTTLE = [
    (0.0, -0.5), (0.5, -0.5), (0.5, 0.08), (0.47, 0.14), (0.35, 0.22), (0.22, 0.28), (0.18, 0.34),
    (0.18, 0.5), (0.0, 0.5),
]  # fmt: skip
_VASE = [
    (0.0, -0.5), (0.3, -0.5), (0.42, -0.35), (0.5, -0.1), (0.44, 0.12), (0.28, 0.28), (0.22, 0.38), (0.34, 0.5),
    (0.28, 0.48), (0.18, 0.36), (0.0, 0.3),
]  # fmt: skip
_BOWL = [(0.0, -0.5), (0.25, -0.5), *_arc(0.25, -0.5, 0.5, 0.5), *reversed(_arc(0.2, -0.36, 0.46, 0.5)), (0.0, -0.36)]
_PLATE = [(0.0, -0.5), (0.3, -0.5), (0.5, 0.5), (0.48, 0.5), (0.3, -0.1), (0.0, -0.1)]
_SHADE = [(0.5, -0.5), (0.3, 0.5)]
_POT = [(0.0, -0.5), (0.36, -0.5), (0.48, 0.3), (0.5, 0.3), (0.5, 0.5), (0.44, 0.5), (0.44, 0.35), (0.0, 0.35)]
_CONE = [(0.0, -0.5), (0.5, -0.5), (0.0, 0.5)]
_GLASS = [(0.0, -0.5), (0.3, -0.5), (0.06, -0.44), (0.06, 0.0), *_arc(0.06, 0.0, 0.4, 0.5), (0.37, 0.5), (0.0, 0.08)]
_CHESS = [
    (0.0, -0.5),
    (0.5, -0.5),
    (0.5, -0.38),
    (0.3, -0.3),
    (0.2, 0.0),
    (0.17, 0.2),
    (0.3, 0.26),
    (0.3, 0.4),
    (0.0, 0.5),
]


MESHES: dict[str, Callable[[], FloatArray]] = {
    "box": box,
    "wedge": wedge,
    "cylinder": lambda: revolve(_CAN, sharp=True),
    "cone": lambda: revolve(_CONE, sharp=True),
    "sphere": lambda: superquadric(1.0, 1.0),
    "dome": lambda: revolve([(0.5, -0.5), *reversed([(r, z) for r, z in _arc(0.0, 0.5, 0.5, -0.5)])][1:]),
    "cushion": lambda: superquadric(0.55, 0.45),
    "rounded": lambda: superquadric(0.25, 0.25, 17, 28),
    "roundcan": lambda: superquadric(0.3, 1.0),
    "diamond": lambda: superquadric(1.8, 1.8),
    "pinch": lambda: superquadric(1.0, 2.4),
    "mug": lambda: revolve(_MUG, 16, sharp=True),
    "bottle": lambda: revolve(_BOTTLE, 16),
    "vase": lambda: revolve(_VASE, 18),
    "bowl": lambda: revolve(_BOWL, 18),
    "plate": lambda: revolve(_PLATE, 20, sharp=True),
    "shade": lambda: revolve(_SHADE, 20),
    "pot": lambda: revolve(_POT, 18, sharp=True),
    "goblet": lambda: revolve(_GLASS, 16),
    "chess": lambda: revolve(_CHESS, 16),
    "torus": torus,
    "curtain": lambda: curtain(6.0),
    "curtain_fine": lambda: curtain(10.0, 61),
    "blob_a": lambda: blob(0, 0.10),
    "blob_b": lambda: blob(1, 0.16),
    "blob_c": lambda: blob(2, 0.22),
    "blob_d": lambda: blob(3, 0.14),
}
FREE_FORMS = (
    "blob_a",
    "blob_b",
    "blob_c",
    "blob_d",
    "cushion",
    "rounded",
    "diamond",
    "pinch",
    "vase",
    "chess",
    "torus",
)
