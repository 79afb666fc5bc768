"""Off-screen OpenGL renderer using EGL (Mesa's llvmpipe on a machine without a GPU)."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mvde.datasets.synth import shaders
from mvde.datasets.synth.builder import INSTANCE_FLOATS, FloatArray
from mvde.datasets.synth.meshes import MESHES
from mvde.datasets.synth.scene import Scene
from mvde.datasets.synth.textures import TextureSet
from mvde.datasets.synth.views import View
from mvde.errors import BackendError, MissingDependencyError

NEAR_M, FAR_M = 0.05, 30.0
SHADOW_SIDE = 1024
LAMP_CONE = math.radians(150.0)
PROBE_SIZE = (48, 48)
_GLOW = INSTANCE_FLOATS - 1
_CENTRE, _SIZE = slice(9, 12), slice(12, 15)
_LAYOUT = "3f 3f 3f 3f 3f 3f 3f 4f /i"
_NAMES = ("axis_x", "axis_y", "axis_z", "centre", "size", "light_colour", "dark_colour", "skin")
_VERTEX = ("3f 3f 2f", "in_position", "in_normal", "in_uv")


def create_context() -> Any:
    """Create a stand-alone off-screen OpenGL context."""
    try:
        moderngl: Any = importlib.import_module("moderngl")
    except ImportError as error:
        raise MissingDependencyError.for_extra("moderngl", "data", "rendering synthetic frames") from error
    try:
        return moderngl.create_context(standalone=True, backend="egl")
    except Exception as error:
        raise BackendError(
            f"no OpenGL 3.3 context through EGL ({error}); install Mesa's EGL"
            " (Debian: apt install libegl1 libgl1-mesa-dri) and the extra that renders: pip install 'mvde[data]'"
        ) from error


class _Target:
    """Framebuffers of one size: z-depth in metres, and linear colour that shares its depth test."""

    def __init__(self, context: Any, size: tuple[int, int]) -> None:
        height, width = size
        shape = (width, height)
        self.size = size
        self.depth_texture = context.texture(shape, 1, dtype="f4")
        self.depth_texture.repeat_x = self.depth_texture.repeat_y = False
        tested = context.depth_renderbuffer(shape)
        self.depth = context.framebuffer([self.depth_texture], tested)
        self.colour = context.framebuffer([context.renderbuffer(shape, 4, dtype="f2")], tested)
        self.colour.depth_mask = False  # filled by the depth pass; clearing the colour must keep it

    def read_depth(self) -> FloatArray:
        raw = np.frombuffer(self.depth.read(components=1, dtype="f4"), dtype=np.float32)
        return raw.reshape(self.size)[::-1]


class _Batch:
    """Mesh, its instance buffer, and one vertex array per program."""

    def __init__(self, context: Any, programs: tuple[Any, ...], mesh: FloatArray) -> None:
        self._context, self._programs = context, programs
        self._mesh = context.buffer(mesh.tobytes())
        self._capacity = 0
        self.arrays: dict[Any, Any] = {}
        self._grow(256)

    def _grow(self, capacity: int) -> None:
        self._capacity = capacity
        self._instances = self._context.buffer(reserve=capacity * INSTANCE_FLOATS * 4, dynamic=True)
        for program in self._programs:
            self.arrays[program] = self._context.vertex_array(
                program, [(self._mesh, *_VERTEX), (self._instances, _LAYOUT, *_NAMES)], skip_errors=True
            )

    def write(self, rows: FloatArray) -> None:
        if len(rows) > self._capacity:
            self._grow(2 * len(rows))
        if len(rows):
            self._instances.write(np.ascontiguousarray(rows).tobytes())


class Renderer:
    """Renderer of the current scene, at one size (height, width), up to ``far_m`` metres."""

    def __init__(self, textures: TextureSet, size: tuple[int, int], far_m: float = FAR_M) -> None:
        self._far_m = far_m
        self._context = context = create_context()
        context.enable(context.DEPTH_TEST)
        context.depth_func = "<="
        self._depth_program = context.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.DEPTH)
        self._shadow_program = context.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.SHADOW)
        # llvmpipe executes both sides of a branch, so a scene without sun uses a program without it.
        self._shade_programs = [
            context.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.shade(sun)) for sun in (False, True)
        ]
        self._shade_program = self._shade_programs[0]
        programs = (self._depth_program, self._shadow_program, *self._shade_programs)
        self._batches = {name: _Batch(context, programs, make()) for name, make in MESHES.items()}
        self._widest = max(size[1] / size[0], 1.0)
        self._target = _Target(context, size)
        self._probe = _Target(context, PROBE_SIZE)
        self._shadows = [self._shadow_map() for _ in range(2)]
        self._textures = self._upload(textures)
        self._rows: dict[str, FloatArray] = {}

    def _upload(self, textures: TextureSet) -> Any:
        layers = textures.layers
        array = self._context.texture_array((layers.shape[2], layers.shape[1], len(layers)), 3, layers.tobytes())
        array.build_mipmaps()
        array.filter = (self._context.LINEAR_MIPMAP_LINEAR, self._context.LINEAR)
        return array

    def _shadow_map(self) -> tuple[Any, Any]:
        texture = self._context.depth_texture((SHADOW_SIDE, SHADOW_SIDE))
        texture.compare_func = "<="
        texture.repeat_x = texture.repeat_y = False
        return texture, self._context.framebuffer(depth_attachment=texture)

    def set_scene(self, scene: Scene) -> None:
        """Load a scene and draw its shadow maps."""
        self._rows = scene.instances
        self._shade_program = self._shade_programs[scene.lights.sun_colour[0] > 0.0]
        self._set_lights(scene)
        self._draw_shadows(scene)

    def _set_lights(self, scene: Scene) -> None:
        lights, program = scene.lights, self._shade_program
        for name in ("lamp_position", "lamp_colour", "sun_direction", "sun_colour", "ambient_up", "ambient_down"):
            _set(program, name, getattr(lights, name))
        _set(program, "fill_position", list(lights.fill_position))
        _set(program, "fill_colour", list(lights.fill_colour))
        _set(program, "corner_darkening", lights.corner_darkening)
        _set(program, "room", scene.size)

    def _draw_shadows(self, scene: Scene) -> None:
        counts = {}
        for name, rows in self._rows.items():
            solid = rows[rows[:, _GLOW] <= 0.0]
            counts[name] = len(solid)
            self._batches[name].write(solid)
        matrices = (_lamp_matrix(scene), _sun_matrix(scene))
        for (_, frame), matrix, name in zip(self._shadows, matrices, ("lamp", "sun"), strict=True):
            frame.use()
            frame.clear(depth=1.0)
            _set_matrix(self._shadow_program, "clip_from_world", matrix)
            _set_matrix(self._shade_program, f"{name}_clip_from_world", matrix)
            if name == "lamp" or scene.lights.sun_colour[0] > 0.0:
                self._draw(self._shadow_program, counts)

    def _draw(self, program: Any, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            if count:
                self._batches[name].arrays[program].render(instances=count)

    def _write_visible(self, view: View) -> dict[str, int]:
        """Fill the batches with potentially visible instances, nearest first (less overdraw), and return the counts."""
        counts = {}
        outward = _frustum_normals(view, self._widest)
        for name, rows in self._rows.items():
            offset = rows[:, _CENTRE] - view.eye_m.astype(np.float32)
            radius = 0.5 * np.linalg.norm(rows[:, _SIZE], axis=1)
            kept = ((offset @ outward.T) < radius[:, None]).all(axis=1)
            offset, radius, chosen = offset[kept], radius[kept], rows[kept]
            order = np.argsort(np.linalg.norm(offset, axis=1) + radius, kind="stable")
            self._batches[name].write(chosen[order])
            counts[name] = len(order)
        return counts

    def _draw_depth(self, view: View, target: _Target, counts: dict[str, int]) -> None:
        target.depth.use()
        target.depth.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        self._set_view(self._depth_program, view, target.size)
        self._draw(self._depth_program, counts)

    def _set_view(self, program: Any, view: View, size: tuple[int, int]) -> None:
        _set_matrix(program, "clip_from_world", _view_matrix(view, size, self._far_m))
        _set(program, "eye", tuple(view.eye_m))
        _set(program, "forward", tuple(-view.world_from_camera[:, 2]))

    def probe(self, view: View) -> FloatArray:
        """Return a small depth map (48, 48) in metres for judging a view; 0 where nothing is hit."""
        self._draw_depth(view, self._probe, self._write_visible(view))
        return self._probe.read_depth()

    def set_instances(self, instances: dict[str, FloatArray]) -> None:
        """Replace what is drawn and keep the shadow maps, for things that move by less than a frame."""
        self._rows = instances

    def depth(self, view: View) -> FloatArray:
        """Return z-depth float32 (H, W) in metres, 0 where nothing is hit."""
        self._draw_depth(view, self._target, self._write_visible(view))
        return self._target.read_depth()

    def render(self, view: View, rows: slice | None = None) -> tuple[FloatArray, FloatArray]:
        """Return linear colour float32 (H, W, 3) and z-depth float32 (H, W) in metres, 0 where nothing is hit.

        With ``rows``, counted from the top, only these have colour; what the others hold is not defined.
        """
        target = self._target
        counts = self._write_visible(view)
        self._draw_depth(view, target, counts)
        depth = target.read_depth()
        program = self._shade_program
        self._set_view(program, view, target.size)
        _set(program, "frame_size", (target.size[1], target.size[0]))
        _set(program, "focal", float(view.intrinsics(target.size)[1]))
        bound = (self._textures, self._shadows[0][0], self._shadows[1][0], target.depth_texture)
        for unit, (name, texture) in enumerate(
            zip(("textures", "lamp_shadow", "sun_shadow", "probe_depth"), bound, strict=True)
        ):
            texture.use(unit)
            _set(program, name, unit)
        height, width = target.size
        target.colour.scissor = None if rows is None else (0, height - rows.stop, width, rows.stop - rows.start)
        target.colour.use()
        target.colour.clear()
        self._draw(program, counts)  # only the nearest surface passes the depth test: each pixel is shaded once
        raw = np.frombuffer(target.colour.read(components=3, dtype="f2", alignment=1), dtype=np.float16)
        colour = raw.reshape(*target.size, 3)[::-1].astype(np.float32)
        return colour, depth

    def close(self) -> None:
        """Release the context and its resources."""
        self._context.release()


def _set(program: Any, name: str, value: object) -> None:
    """Set a uniform, unless the compiler removed it as unused."""
    if name in program:
        program[name].value = value


def _set_matrix(program: Any, name: str, matrix: npt.NDArray[np.float64]) -> None:
    if name in program:
        program[name].write(np.ascontiguousarray(matrix.T, dtype=np.float32).tobytes())


def _frustum_normals(view: View, aspect: float) -> FloatArray:
    """Return the outward normals (5, 3) of the view's side planes and of the plane behind the eye."""
    t = math.tan(view.vertical_fov / 2)
    normals = np.array([[1, 0, t * aspect], [-1, 0, t * aspect], [0, 1, t], [0, -1, t], [0, 0, 1]], dtype=np.float64)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals @ view.world_from_camera.T).astype(np.float32)


def _perspective(vertical_fov: float, aspect: float, near: float, far: float) -> npt.NDArray[np.float64]:
    focal = 1.0 / math.tan(vertical_fov / 2)
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[1, 1] = focal / aspect, focal
    matrix[2, 2], matrix[2, 3] = (far + near) / (near - far), 2 * far * near / (near - far)
    matrix[3, 2] = -1.0
    return matrix


def _from_world(eye: npt.NDArray[np.float64], axes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes.T, -axes.T @ eye
    return matrix


def _view_matrix(view: View, size: tuple[int, int], far_m: float) -> npt.NDArray[np.float64]:
    projection = _perspective(view.vertical_fov, size[1] / size[0], NEAR_M, far_m)
    return projection @ _from_world(view.eye_m, view.world_from_camera)


def _lamp_matrix(scene: Scene) -> npt.NDArray[np.float64]:
    axes = np.eye(3)  # z points backwards, here up: the lamp looks straight down
    return _perspective(LAMP_CONE, 1.0, 0.1, 12.0) @ _from_world(np.array(scene.lights.lamp_position), axes)


def _sun_matrix(scene: Scene) -> npt.NDArray[np.float64]:
    back = np.array(scene.lights.sun_direction)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(back, right), back], axis=1)
    reach = float(np.linalg.norm(scene.size)) / 2 + 0.3
    matrix = np.diag([1 / reach, 1 / reach, -1 / (2 * reach), 1.0])
    return matrix @ _from_world(np.array(scene.size) / 2, axes)
