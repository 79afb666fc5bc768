"""GLSL shaders of the renderer: one vertex shader for all passes, a depth pass and the shading pass."""

VERTEX = """
#version 330
uniform mat4 clip_from_world;
uniform vec3 eye;
uniform vec3 forward;

in vec3 in_position;
in vec3 in_normal;
in vec2 in_uv;
in vec3 axis_x;
in vec3 axis_y;
in vec3 axis_z;
in vec3 centre;
in vec3 size;
in vec3 light_colour;
in vec3 dark_colour;
in vec4 skin;  // texture layer, period in metres, gloss, glow

out vec3 world;
out vec3 normal;
out vec3 texel;
flat out vec3 light;
flat out vec3 dark;
flat out vec2 finish;
out float depth_m;
invariant gl_Position;  // the passes compare depths for equality

void main() {
    mat3 axes = mat3(axis_x, axis_y, axis_z);
    vec3 local = in_position * size;
    world = axes * local + centre;
    normal = axes * (in_normal / size);
    vec2 uv, unit;
    if (in_uv.x < -5.0) {  // box mapping: metres along the face
        vec3 side = abs(in_normal);
        if (side.z >= side.x && side.z >= side.y) { uv = local.xy; unit = in_position.xy; }
        else if (side.x >= side.y) { uv = local.yz; unit = in_position.yz; }
        else { uv = local.xz; unit = in_position.xz; }
        unit += 0.5;
    } else {
        uv = vec2(in_uv.x * 3.14 * size.x, in_uv.y * size.z);
        unit = in_uv;
    }
    vec2 shift = fract(centre.xy * 7.31 + centre.z * 3.77);  // equal things do not show equal patches
    texel = vec3(skin.y < 0.0 ? unit : uv / skin.y + shift, skin.x);
    light = light_colour;
    dark = dark_colour;
    finish = skin.zw;
    depth_m = dot(world - eye, forward);
    gl_Position = clip_from_world * vec4(world, 1.0);
}
"""

DEPTH = """
#version 330
in float depth_m;
out float out_depth;
void main() { out_depth = depth_m; }
"""

SHADOW = """
#version 330
void main() {}
"""

_SHADE = """
uniform sampler2DArray textures;
uniform sampler2DShadow lamp_shadow;
uniform sampler2DShadow sun_shadow;
uniform sampler2D probe_depth;
uniform mat4 lamp_clip_from_world;
uniform mat4 sun_clip_from_world;
uniform vec3 eye;
uniform vec3 room;
uniform vec3 lamp_position;
uniform vec3 lamp_colour;
uniform vec3 sun_direction;
uniform vec3 sun_colour;
uniform vec3 fill_position[2];
uniform vec3 fill_colour[2];
uniform vec3 ambient_up;
uniform vec3 ambient_down;
uniform float corner_darkening;
uniform vec2 frame_size;
uniform float focal;

in vec3 world;
in vec3 normal;
in vec3 texel;
flat in vec3 light;
flat in vec3 dark;
flat in vec2 finish;
in float depth_m;
out vec4 out_colour;

const vec2 taps[4] = vec2[](vec2(-0.6, -0.9), vec2(0.9, -0.5), vec2(0.5, 0.9), vec2(-0.9, 0.6));

float shadow(sampler2DShadow map, mat4 clip_from_world, vec3 n, float radius) {
    vec4 clip = clip_from_world * vec4(world + n * 0.025, 1.0);
    vec3 at = clip.xyz / clip.w * 0.5 + 0.5;
    if (clip.w <= 0.0 || any(lessThan(at.xy, vec2(0.0))) || any(greaterThan(at.xy, vec2(1.0)))) return 1.0;
    float lit = 0.0;
    for (int i = 0; i < 4; ++i) lit += texture(map, vec3(at.xy + taps[i] * radius, at.z - 0.0015));
    return lit * 0.25;
}

float corners(vec3 n) {  // ambient light lost towards walls, floor and ceiling, except on their own plane
    vec3 low = exp(-max(world, 0.0) * 2.6) * (1.0 - max(n, 0.0));
    vec3 high = exp(-max(room - world, 0.0) * 2.6) * (1.0 - max(-n, 0.0));
    vec3 kept = (1.0 - corner_darkening * low) * (1.0 - corner_darkening * high);
    return kept.x * kept.y * kept.z;
}

float crevices() {  // screen-space occlusion from the depth pass: four pairs of taps within 25 cm
    vec2 here = gl_FragCoord.xy / frame_size;
    float reach = clamp(focal * 0.25 / depth_m, 2.0, 40.0 / 192.0 * frame_size.y);
    float turn = fract(52.9829 * fract(dot(gl_FragCoord.xy, vec2(0.0671, 0.00584)))) * 6.2832;
    float lost = 0.0;
    for (int i = 0; i < 4; ++i) {
        float angle = turn + float(i) * 0.7854;
        vec2 tap = vec2(cos(angle), sin(angle)) * reach * (0.35 + 0.65 * fract(float(i) * 0.618)) / frame_size;
        float other = 0.5 * (textureLod(probe_depth, here + tap, 0.0).r + textureLod(probe_depth, here - tap, 0.0).r);
        float nearer = depth_m - other;  // convex: 0 on a plane seen in depth, > 0 inside a corner
        lost += smoothstep(0.015, 0.12, nearer) * (1.0 - smoothstep(0.2, 0.6, nearer));
    }
    return 1.0 - lost * 0.16;
}

void main() {
    vec3 n = normalize(normal);
    vec3 to_eye = normalize(eye - world);
    if (dot(n, to_eye) < 0.0) n = -n;
    vec3 albedo = mix(dark, light, texture(textures, texel).rgb);
    if (finish.y > 0.0) { out_colour = vec4(albedo * finish.y, 1.0); return; }

    float occlusion = corners(n) * crevices();
    vec3 total = mix(ambient_down, ambient_up, n.z * 0.5 + 0.5) * occlusion;
    vec3 shine = vec3(0.0);
    float sharpness = 6.0 + 90.0 * finish.x;

    vec3 ray = lamp_position - world;
    float distance2 = dot(ray, ray);
    ray *= inversesqrt(distance2);
    float facing = dot(n, ray);
    if (facing > 0.0) {
        float lit = shadow(lamp_shadow, lamp_clip_from_world, n, 0.006);
        vec3 incoming = lamp_colour * lit / (0.6 + distance2);
        total += incoming * facing;
        shine += incoming * pow(max(dot(n, normalize(ray + to_eye)), 0.0), sharpness);
    }
#ifdef SUN
    facing = dot(n, sun_direction);
    if (facing > 0.0) {
        float lit = shadow(sun_shadow, sun_clip_from_world, n, 0.0025);
        total += sun_colour * facing * lit;
        shine += sun_colour * lit * pow(max(dot(n, normalize(sun_direction + to_eye)), 0.0), sharpness);
    }
#endif
    for (int i = 0; i < 2; ++i) {
        ray = fill_position[i] - world;
        distance2 = dot(ray, ray);
        total += fill_colour[i] * occlusion * max(dot(n, ray * inversesqrt(distance2)), 0.0) / (0.6 + distance2);
    }
    float rim = pow(1.0 - max(dot(n, to_eye), 0.0), 4.0);
    vec3 sheen = (0.04 + 0.5 * rim) * finish.x * mix(ambient_down, ambient_up, 0.7) * occlusion;
    out_colour = vec4(albedo * total + finish.x * 0.8 * shine + sheen, 1.0);
}
"""


def shade(sun: bool) -> str:
    """Return the fragment shader of the shading pass, with or without sun."""
    return "#version 330\n" + ("#define SUN\n" if sun else "") + _SHADE
