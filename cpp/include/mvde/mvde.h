/* mvde.h - C API of libmvde: inference sessions, depth post-processing and image resizing for robots.
 *
 * Conventions
 *   - C99. No function throws, prints or aborts, and none keeps a caller's pointer unless its comment says so.
 *   - The caller owns every buffer. Sizes are (height, width) in pixels. Strides are in bytes and may be negative; 0 means
 *     dense.
 *   - Functions that can fail return MVDE_OK (0) or a negative mvde_status. mvde_strerror() describes the status;
 *     mvde_last_error() describes the calling thread's last failure: what was given, what was expected, what to do.
 *   - All functions are thread-safe, but an mvde_workers, mvde_resizer or mvde_session serves one call at a time: a
 *     concurrent call fails with MVDE_ERROR_BUSY (mvde_session_query never blocks one). Consecutive calls may come from
 *     different threads.
 *   - A destroyed or invalid handle is detected: calls with it return MVDE_ERROR_CLOSED, and destroying it is a no-op. At
 *     most 1024 workers, 4096 resizers and 1024 sessions can be open at once.
 *   - Results do not depend on the caller's floating-point environment (rounding mode, traps, flush-to-zero). Every function
 *     restores it.
 *   - After fork(), the parent's workers and resizers keep working in the child, single-threaded and with the same results.
 *     The parent's sessions do not, and the child cannot open new ones with an inference library that the parent has used:
 *     calls return MVDE_ERROR_FORKED. Destroying and closing work and do not block.
 *   - Depth is in metres, except for 16-bit output, which is in millimetres with 0 for "no depth" (ROS REP 118).
 */
#ifndef MVDE_MVDE_H
#define MVDE_MVDE_H

#include <stddef.h>
#include <stdint.h>

#if defined(MVDE_STATIC)
#define MVDE_API
#elif defined(__GNUC__)
#define MVDE_API __attribute__((visibility("default")))
#else
#define MVDE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ------------------------------------------------------------------------------------------------- */

/* Semantic version: MAJOR is incremented by incompatible changes, MINOR by additions. */
#define MVDE_VERSION_MAJOR 0
#define MVDE_VERSION_MINOR 1
#define MVDE_VERSION_PATCH 0
#define MVDE_VERSION (MVDE_VERSION_MAJOR * 10000 + MVDE_VERSION_MINOR * 100 + MVDE_VERSION_PATCH)

/* Return the MVDE_VERSION of the loaded library. Its major (before 1.0, also minor) part must match the header's. */
MVDE_API int32_t mvde_version(void);

/* ---- errors -------------------------------------------------------------------------------------------------- */

typedef enum mvde_status {
    MVDE_OK = 0,
    MVDE_ERROR_ARGUMENT = -1,  /* a NULL pointer, an unknown enumerator, or a value out of range */
    MVDE_ERROR_SHAPE = -2,     /* sizes do not match the patch size or each other, or overflow 64 bits */
    MVDE_ERROR_ALIGNMENT = -3, /* a pointer or stride is not a multiple of its element's size */
    MVDE_ERROR_OVERLAP = -4,   /* an output overlaps the input or another output */
    MVDE_ERROR_CAPACITY = -5,  /* the output buffer is too small */
    MVDE_ERROR_KERNEL = -6,    /* the requested implementation is unknown or not supported by this CPU */
    MVDE_ERROR_MEMORY = -7,    /* out of memory; only functions that create an object allocate */
    MVDE_ERROR_BUSY = -8,      /* the handle is in use by another call */
    MVDE_ERROR_THREAD = -9,    /* the operating system could not start a thread */
    MVDE_ERROR_ARTIFACT = -10, /* no engine at the path, or it cannot be read */
    MVDE_ERROR_MANIFEST = -11, /* the engine's manifest is missing, malformed, or unusable for a session */
    MVDE_ERROR_HASH = -12,     /* a file's checksum or size differs from its manifest */
    MVDE_ERROR_INCOMPATIBLE = -13, /* the engine was built for another machine, library version or graph */
    MVDE_ERROR_BACKEND = -14,      /* the inference library is missing, or a call to it failed */
    MVDE_ERROR_TIMEOUT = -15,      /* inference has not finished; the frame is still in flight */
    MVDE_ERROR_IDLE = -16,         /* no frame is in flight, or no device memory is bound */
    MVDE_ERROR_CLOSED = -17,       /* the handle is closed or invalid */
    MVDE_ERROR_NO_DEVICE = -18,    /* the engine needs a GPU, and no usable one was found */
    MVDE_ERROR_UNSUPPORTED = -19,  /* not supported by this engine's backend */
    MVDE_ERROR_FORKED = -20        /* the parent process used the inference library before fork() */
} mvde_status;

/* Size in bytes of the longest error message, terminating NUL included; longer ones are truncated. */
#define MVDE_ERROR_BYTES 2048

/* Return a one-line description of a status: a static string, never NULL, also for unknown values. */
MVDE_API const char *mvde_strerror(int32_t status);

/* Return the message of this thread's last failed call, or "" if none has failed. Owned by the library; valid until the
 * thread's next call. */
MVDE_API const char *mvde_last_error(void);

/* ---- implementations ----------------------------------------------------------------------------------------- */

/* The post-processing kernel is implemented as "scalar", "avx2", "avx512" and "neon", with bit-identical results. The first
 * call selects the fastest one that this CPU supports. The environment variable MVDE_KERNEL, read at that time, forces one.
 * If the forced one is unknown or unsupported, every call fails with MVDE_ERROR_KERNEL; there is no silent fallback. */

/* Return the name of the implementation that calls use (a static string), or NULL if MVDE_KERNEL names an unusable one. */
MVDE_API const char *mvde_kernel(void);

/* Return the name of the implementation that executed this thread's last mvde_postprocess or mvde_patch_stats, as reported
 * by the implementation itself; "" before the first call. */
MVDE_API const char *mvde_last_kernel(void);

/* Return 1 if the implementation `name` is built in and supported by this CPU, else 0. */
MVDE_API int32_t mvde_kernel_is_available(const char *name);

/* Force the implementation `name` for the whole process; NULL restores the choice by CPU and MVDE_KERNEL. */
MVDE_API int32_t mvde_set_kernel(const char *name);

/* ---- threads ------------------------------------------------------------------------------------------------- */

/* A thread pool that shares the work of one call with the calling thread. Results do not depend on the thread count. */
typedef struct mvde_workers mvde_workers;

/* Create a pool. `num_threads`: 1 to 256, calling thread included (1 starts no thread). `*workers` receives the handle; the
 * caller owns it and releases it with mvde_workers_destroy. */
MVDE_API int32_t mvde_workers_create(int32_t num_threads, mvde_workers **workers);

/* Stop the threads and release the pool, after a call in progress has returned. NULL is allowed. */
MVDE_API void mvde_workers_destroy(mvde_workers *workers);

/* ---- depth and patch statistics ------------------------------------------------------------------------------ */

typedef enum mvde_dtype {
    MVDE_FLOAT32 = 0,
    MVDE_FLOAT16 = 1,  /* IEEE binary16 */
    MVDE_BFLOAT16 = 2, /* upper 16 bits of a float32 */
    MVDE_UINT16 = 3    /* output only: millimetres */
} mvde_dtype;

/* A batch of single-channel maps in the caller's memory. */
typedef struct mvde_map {
    void *data;       /* not written if the map is an input */
    int32_t dtype;    /* mvde_dtype */
    int32_t reserved; /* 0 */
    int64_t batch, height, width;                   /* number of maps; pixels */
    int64_t batch_stride, row_stride, pixel_stride; /* bytes, multiples of the element size; 0 means dense */
} mvde_map;

/* Conversion of the raw network output x to depth in metres. */
typedef enum mvde_conversion {
    MVDE_LINEAR = 0,     /* scale * x + shift */
    MVDE_INVERSE = 1,    /* 1 / (scale * x + shift) of x > 0, else invalid: inverse depth, disparity */
    MVDE_EXP = 2,        /* exp(scale * x + shift) */
    MVDE_LOG_SIGMOID = 3 /* exp(ln min + sigmoid(scale * x + shift) * (ln max - ln min)): mvde's metric head */
} mvde_conversion;

/* Treatment of a finite, positive depth outside [min_depth_m, max_depth_m]. */
typedef enum mvde_range {
    MVDE_REJECT = 0, /* mark it invalid */
    MVDE_CLAMP = 1   /* move it to the nearest bound */
} mvde_range;

/* Meaning of a mask. */
typedef enum mvde_mask {
    MVDE_MASK_SKY = 0,  /* >= threshold: no object in range; float32 depth is +infinity, or 0 if `invalid_m` is 0. NaN: not
                           sky */
    MVDE_MASK_VALID = 1 /* < threshold, or NaN: invalid */
} mvde_mask;

/* Options of mvde_postprocess. Initialise with mvde_postprocess_defaults(). */
typedef struct mvde_postprocess_options {
    uint32_t struct_size; /* sizeof(mvde_postprocess_options) */
    int32_t conversion;   /* mvde_conversion */
    float scale, shift;   /* finite, scale not 0; see mvde_conversion */
    int32_t range;        /* mvde_range */
    float min_depth_m;    /* metres, inclusive, 0 <= min < max; 0: no bound. MVDE_LOG_SIGMOID requires min > 0 */
    float max_depth_m;    /* metres, inclusive; INFINITY: no bound. MVDE_LOG_SIGMOID requires a finite max */
    float invalid_m;      /* value of invalid pixels in a float32 map; 16-bit maps get 0 */
    const mvde_map *mask; /* float32, float16 or bfloat16, same shape as `raw`: pixels without depth; NULL: none */
    int32_t mask_role;    /* mvde_mask */
    float mask_threshold; /* of `mask`; finite; by default 0.5 */
    const mvde_map *confidence; /* float32, float16 or bfloat16, same shape as `raw`; MVDE_CONF requires it; NULL: none */
} mvde_postprocess_options;

/* Set `options` to: linear, scale 1, shift 0, reject, no bounds, NaN for invalid pixels, no mask, no confidence. */
MVDE_API void mvde_postprocess_defaults(mvde_postprocess_options *options);

/* Upper limit of valid depth, in metres or the model's own unit: a pixel is valid if it is finite, > 0, within the bounds
 * and at most this. Sums of squares of larger values over a patch would overflow. */
#define MVDE_LARGEST_DEPTH 1e16f

typedef enum mvde_stat {
    MVDE_MEAN = 0,  /* m */
    MVDE_VAR = 1,   /* m^2, population variance */
    MVDE_GRAD = 2,  /* m/px, mean of sqrt(gx^2 + gy^2): central differences over the whole image, borders replicated; 0
                       where either pixel of a difference is invalid */
    MVDE_MIN = 3,   /* m */
    MVDE_MAX = 4,   /* m */
    MVDE_VALID = 5, /* fraction of valid pixels in the patch, 0 to 1 */
    MVDE_CONF = 6,  /* mean of the confidence map, where a value that is not finite counts as 0; mvde_postprocess with
                       options.confidence only */
    MVDE_LO = 7,    /* m: the true mean depth of a patch lies between MVDE_LO and MVDE_HI with the probability that the
                       calibration states; only in sessions whose calibration has intervals, as the two below */
    MVDE_HI = 8,    /* m */
    MVDE_NEAR = 9   /* m: the nearest point of a patch is not nearer, with a probability of 95 % */
} mvde_stat;

#define MVDE_MAX_STATS 16 /* most columns of statistics */

/* Patch statistics to compute. Only valid pixels count (see MVDE_LARGEST_DEPTH); a patch without any gets 0 for every
 * statistic. Initialise with mvde_stats_request_defaults(). */
typedef struct mvde_stats_request {
    uint32_t struct_size; /* sizeof(mvde_stats_request) */
    int32_t patch_size;   /* pixels; height and width must be multiples of it */
    int32_t num_stats;    /* 1 to MVDE_MAX_STATS */
    const int32_t *stats; /* mvde_stat of each output column */
    float *out;           /* [batch, rows * columns, num_stats], dense; patches in row-major order */
    int64_t capacity;     /* size of `out` in floats */
} mvde_stats_request;

/* Set `request` to its size and zeros: every other field is to be filled in. */
MVDE_API void mvde_stats_request_defaults(mvde_stats_request *request);

/* Return the number of floats that a statistics request writes for maps of this size, or a negative mvde_status. `height`,
 * `width` and `patch_size` are in pixels. */
MVDE_API int64_t mvde_num_patch_stats(int64_t batch, int64_t height, int64_t width, int32_t patch_size, int32_t num_stats);

/* Convert raw network output to depth and patch statistics in one pass. Does not allocate.
 *   raw      network output: float32, float16 or bfloat16
 *   options  NULL: the defaults
 *   depth    output in metres (float32) or millimetres (uint16; depth past 65.535 m becomes 0), same shape as `raw`;
 *            NULL: not wanted
 *   request  statistics to compute; NULL: not wanted
 *   workers  thread pool; NULL: the calling thread only
 * Depth should lie in [1e-18, 1e18] m: outside, squares leave the range of float32. */
MVDE_API int32_t mvde_postprocess(const mvde_map *raw, const mvde_postprocess_options *options, const mvde_map *depth,
                                  const mvde_stats_request *request, mvde_workers *workers);

/* Compute patch statistics of a depth map in metres (float32, float16 or bfloat16). The bounds, in metres and inclusive, are
 * first rounded to the map's dtype, so that depth clamped to a bound in that dtype is within it. `workers` may be NULL. */
MVDE_API int32_t mvde_patch_stats(const mvde_map *depth, float min_depth_m, float max_depth_m,
                                  const mvde_stats_request *request, mvde_workers *workers);

/* ---- camera images ------------------------------------------------------------------------------------------- */

typedef enum mvde_pixel_format {
    MVDE_RGB = 0,
    MVDE_BGR = 1,
    MVDE_GREY = 2,
    MVDE_NV12 = 3, /* luma plane, then interleaved Cb Cr at half resolution; even sides */
    MVDE_YUYV = 4  /* Y0 Cb Y1 Cr; even width */
} mvde_pixel_format;

/* Colour matrix of MVDE_NV12 and MVDE_YUYV. */
typedef enum mvde_matrix {
    MVDE_BT601 = 0, /* most webcams, standard-definition video */
    MVDE_BT709 = 1  /* high-definition video */
} mvde_matrix;

/* What identifies a frame; its meaning is the caller's. */
typedef struct mvde_tag {
    int64_t timestamp_ns;
    uint64_t sequence;
} mvde_tag;

/* A known depth in a frame: `x` (column) and `y` (row) in pixels, and metres along the optical axis. */
typedef struct mvde_anchor {
    float x, y, depth_m;
} mvde_anchor;

/* A camera frame in the caller's memory, 8 bits per channel. Initialise with mvde_frame_defaults(). */
typedef struct mvde_frame {
    uint32_t struct_size;  /* sizeof(mvde_frame) */
    int32_t format;        /* mvde_pixel_format */
    const uint8_t *data;   /* first pixel; NV12: of the luma plane */
    const uint8_t *chroma; /* NV12: the chroma plane, or NULL if it follows the luma plane. Other formats: NULL. */
    int64_t height, width; /* pixels */
    int64_t row_stride, chroma_row_stride; /* bytes; 0 means dense */
    int32_t matrix;     /* mvde_matrix, of NV12 and YUYV */
    int32_t full_range; /* of NV12 and YUYV; 0: luma is 16 to 235, chroma 16 to 240; 1: both are 0 to 255 (JPEG) */
    mvde_tag tag;       /* comes out with the frame's results (mvde_outputs.tag) */
    /* For sessions: known depths, which give this frame its metres in place of a calibration. One or more; for
     * MVDE_INVERSE_RELATIVE two or more, the farthest at 1.5 times the nearest or beyond. Copied by the call. */
    const mvde_anchor *anchors;
    int32_t num_anchors; /* 0 to 4096 */
    double time_s; /* for sessions with a stabilization: seconds of any clock at which it was taken; NaN: not known */
} mvde_frame;

/* Set `frame` to: RGB, dense, BT.601, limited range, no anchors, no time; pixels and size are to be filled in. */
MVDE_API void mvde_frame_defaults(mvde_frame *frame);

/* Mapping of a frame to another aspect ratio. */
typedef enum mvde_fit {
    MVDE_FIT_DEFAULT = -1, /* the engine's own, as its manifest states; for sessions only */
    MVDE_STRETCH = 0,      /* the whole frame, aspect ratio not preserved */
    MVDE_LETTERBOX = 1,    /* the whole frame, aspect ratio preserved, padded */
    MVDE_CROP = 2          /* the centre of the frame, aspect ratio preserved */
} mvde_fit;

typedef enum mvde_interpolation {
    MVDE_BILINEAR = 0,
    MVDE_BICUBIC = 1 /* Keys' kernel; see bicubic_coefficient */
} mvde_interpolation;

/* A rectangle in pixels; bottom and right are exclusive. */
typedef struct mvde_box {
    int64_t top, left, bottom, right;
} mvde_box;

/* How frames are placed and resampled. Initialise with mvde_resizer_defaults(). */
typedef struct mvde_resizer_options {
    uint32_t struct_size;      /* sizeof(mvde_resizer_options) */
    int32_t fit;               /* mvde_fit; not MVDE_FIT_DEFAULT */
    int32_t interpolation;     /* mvde_interpolation */
    float bicubic_coefficient; /* -0.5 (Pillow, and torch with antialiasing) or -0.75 (OpenCV, and torch without) */
    int32_t antialias;         /* 1: widen the kernel when downscaling and omit taps beyond the border, as Pillow does;
                                  0: replicate the border, as torch and OpenCV do */
    int32_t align_corners;     /* 1: corner pixels keep their centres; without antialiasing only */
    int32_t multiple;          /* MVDE_LETTERBOX rounds the frame's sides in the target to multiples of it, which the
                                  target's sides must be, too; 1 to 65536 pixels */
    int32_t padding;           /* value of the target's pixels outside the frame, 0 to 255 */
} mvde_resizer_options;

/* Set `options` to: stretch, bilinear with antialiasing, -0.5 for bicubic, multiple 1, padding 128 (grey). */
MVDE_API void mvde_resizer_defaults(mvde_resizer_options *options);

/* Resizes frames of one format and size to one resolution, and maps depth back. All memory is allocated at creation.
 * Resamples along x, then along y, rounding to bytes after each; bit-identical to Pillow's BILINEAR and BICUBIC so applied
 * (with antialiasing and a coefficient of -0.5). */
typedef struct mvde_resizer mvde_resizer;

/* Create a resizer. Sizes are in pixels (target: 1 to 65536 a side); `format` is a mvde_pixel_format; `options` may be NULL:
 * the defaults. `*resizer` receives the handle; the caller owns it and releases it with mvde_resizer_destroy. */
MVDE_API int32_t mvde_resizer_create(int32_t format, int64_t source_height, int64_t source_width, int64_t target_height,
                                     int64_t target_width, const mvde_resizer_options *options, mvde_resizer **resizer);

/* Release the resizer, after a call in progress has returned. NULL is allowed. */
MVDE_API void mvde_resizer_destroy(mvde_resizer *resizer);

/* Get the part of the frame that is resized (`*source`) and the part of the target that it fills (`*target`), in pixels.
 * Either pointer may be NULL. */
MVDE_API int32_t mvde_resizer_boxes(const mvde_resizer *resizer, mvde_box *source, mvde_box *target);

/* Resize `frame`, of the format and size given at creation, to `rgb`: RGB bytes [target_height, target_width, 3] with a row
 * stride in bytes (0: dense). The two must not overlap. `workers` may be NULL. */
MVDE_API int32_t mvde_resize(mvde_resizer *resizer, const mvde_frame *frame, uint8_t *rgb, int64_t rgb_row_stride,
                             mvde_workers *workers);

/* Map depth from the target's resolution back to the frame's pixels, bilinearly. `depth_m` is [target_height, target_width],
 * `source_m` [source_height, source_width], float32 metres, row strides in bytes (0: dense).
 * Depth is finite; the mean is over the neighbours that have it, so holes neither grow nor shrink. A pixel whose
 * neighbours without depth weigh more than half gets +inf if most of that weight is +inf, else `invalid_m` (NaN or 0; 0 also
 * instead of +inf). So do, with `invalid_m`, pixels outside the resized part of the frame. `workers` may be NULL. */
MVDE_API int32_t mvde_depth_to_source(mvde_resizer *resizer, const float *depth_m, int64_t depth_row_stride, float *source_m,
                                      int64_t source_row_stride, float invalid_m, mvde_workers *workers);

/* ---- cameras and points --------------------------------------------------------------------------------------- */

/* The camera of the frames, in pixels of a frame of height x width. Pixel centres have integer coordinates, as in OpenCV and
 * ROS. */
typedef struct mvde_camera {
    double fx, fy; /* focal lengths, > 0 and < 1e9 */
    double cx, cy; /* principal point, which may lie outside the frame */
    int64_t height, width;
} mvde_camera;

/* Model of a lens's distortion, as sensor_msgs/CameraInfo names it; frames of other lenses must be rectified. */
typedef enum mvde_distortion_model {
    MVDE_UNDISTORTED = 0,
    MVDE_PLUMB_BOB = 1,           /* k1, k2, p1, p2, k3 */
    MVDE_RATIONAL_POLYNOMIAL = 2, /* k1, k2, p1, p2, k3, k4, k5, k6; those of a thin prism or a tilted sensor must be 0 */
    MVDE_EQUIDISTANT = 3          /* k1, k2, k3, k4 */
} mvde_distortion_model;

/* Distortion of a lens. */
typedef struct mvde_distortion {
    int32_t model;          /* mvde_distortion_model */
    int32_t reserved;       /* 0 */
    double coefficients[8]; /* in the order of ROS and OpenCV; 0 after those of the model */
} mvde_distortion;

/* The ray of every pixel of a camera's frames. Immutable: it serves any number of calls at once. At most 1024 can exist. */
typedef struct mvde_rays mvde_rays;

/* Compute rays. `distortion`: NULL for rectified frames. `*rays` receives the handle; the caller owns it and releases it with
 * mvde_rays_destroy. All memory is allocated here: 8 bytes a pixel with distortion, else 4 bytes a row and a column. */
MVDE_API int32_t mvde_rays_create(const mvde_camera *camera, const mvde_distortion *distortion, mvde_rays **rays);

/* Release rays, after calls in progress have returned. NULL is allowed. */
MVDE_API void mvde_rays_destroy(mvde_rays *rays);

/* Options of mvde_points. Initialise with mvde_points_defaults(). */
typedef struct mvde_points_options {
    uint32_t struct_size; /* sizeof(mvde_points_options) */
    int32_t step; /* a point for every step-th row and column, from the first on; 1 to 65536 */
    const mvde_frame *colours; /* the frame that depth is of, in any format: each point has its colour too. NULL: none */
} mvde_points_options;

/* Set `options` to: a point for every pixel, no colours. */
MVDE_API void mvde_points_defaults(mvde_points_options *options);

/* Return the number of floats that mvde_points writes for frames of height x width pixels, or a negative mvde_status. */
MVDE_API int64_t mvde_num_point_values(int64_t height, int64_t width, int32_t step, int32_t has_colours);

/* Compute the points of a depth map: x = depth * (x/z), y = depth * (y/z) and z = depth in metres, in the camera's optical
 * frame (x right, y down, z forward: ROS REP 103), NaN where depth is not above 0 or past MVDE_LARGEST_DEPTH, and where the lens
 * has no ray. Does not allocate.
 *   rays     of the camera of the map's frames
 *   depth_m  [height, width] of that camera, float32 metres, row stride in bytes (0: dense)
 *   options  NULL: the defaults
 *   points   [ceil(height / step), ceil(width / step), 3], dense: the data of an organised sensor_msgs/PointCloud2 with
 *            fields x, y and z; with colours [..., 4], whose last is the field rgb: bits 0x00RRGGBB, a float32 for ROS and
 *            PCL
 *   capacity size of `points` in floats
 *   workers  thread pool; NULL: the calling thread only */
MVDE_API int32_t mvde_points(const mvde_rays *rays, const float *depth_m, int64_t depth_row_stride,
                             const mvde_points_options *options, float *points, int64_t capacity, mvde_workers *workers);

/* ---- distances by bearing ------------------------------------------------------------------------------------ */

/* How the camera is mounted over the floor, and what counts as an obstacle. Initialise with mvde_scan_defaults(). */
typedef struct mvde_scan_settings {
    uint32_t struct_size; /* sizeof(mvde_scan_settings) */
    double height_m;      /* of the camera's centre over the floor, 0.01 to 100; has no default */
    double pitch_deg;     /* -80 to 80, positive: looks down. About the axis y (left) of ROS REP 103 */
    double roll_deg;      /* -180 to 180, positive: its left side is up. About the axis x (forward) */
    double min_height_m;  /* lower bound of obstacles over the floor; NaN: 0.2 * height_m + 0.05, since an error of the
                             depth lifts the floor by its share of the height */
    double max_height_m;  /* upper bound */
    double range_min_m;   /* 0.01 to 1000; what is nearer is told at this range */
    double range_max_m;   /* 0.01 to 1000; what is farther is free */
    double increment_deg; /* between bearings, 0.1 to 10 */
    double support_deg2;  /* solid angle that an obstacle fills in a bearing's sector, square degrees, 0.001 to 100 */
    double margin;        /* tells ranges shorter by the factor e^-margin, 0 to 1 */
} mvde_scan_settings;

/* Set `settings` to: no height, level, obstacles up to 1.6 m, ranges of 0.1 to 10 m, bearings 0.9 degrees apart, a support of
 * 0.7 square degrees, no margin. */
MVDE_API void mvde_scan_defaults(mvde_scan_settings *settings);

/* Read settings from a YAML file of one setting a line, such as `height_m: 0.6`; `height_m` has no default. Allocates. */
MVDE_API int32_t mvde_scan_read(const char *path, mvde_scan_settings *settings);

/* Turns depth maps of one camera and mounting into distances by bearing. All memory is allocated at creation. At most 1024
 * can exist. */
typedef struct mvde_scanner mvde_scanner;

/* Create a scanner.
 *   rays      of the depth maps' camera (for those of a network: the frame's camera, carried into its input); read by this
 *             call only
 *   box       the pixels of the maps that show the frame; NULL: all
 *   settings  read by this call only
 *   scanner   receives the handle; the caller owns it and releases it with mvde_scanner_destroy
 * Fails with MVDE_ERROR_ARGUMENT if the camera sees nothing between the heights, or a sector has fewer pixels than the
 * support. */
MVDE_API int32_t mvde_scanner_create(const mvde_rays *rays, const mvde_box *box, const mvde_scan_settings *settings,
                                     mvde_scanner **scanner);

/* Release the scanner, after a call in progress has returned. NULL is allowed. */
MVDE_API void mvde_scanner_destroy(mvde_scanner *scanner);

/* Properties of a scan: the constant fields of a ROS LaserScan, in its units, and its frame. */
typedef struct mvde_scan_info {
    uint32_t struct_size; /* sizeof(mvde_scan_info), to be set by the caller */
    int32_t num_bearings;
    double angle_min, angle_increment; /* radians, counter-clockwise from straight ahead */
    double range_min, range_max;       /* metres */
    int32_t support;                   /* pixels */
    double rotation[4];   /* quaternion (x, y, z, w) of the static transform from the camera's optical frame to its child,
                             the scan's: x forward, y left, z up and level, at the camera's centre (no translation) */
    const float *reach_m; /* [num_bearings]: how far the camera sees between the heights of obstacles. What is free is known
                             to be free up to there only. Owned by the scanner or session */
} mvde_scan_info;

/* Get the properties of a scanner's scans. Allowed while another call uses it. */
MVDE_API int32_t mvde_scanner_query(const mvde_scanner *scanner, mvde_scan_info *info);

/* Compute the distances by bearing of a depth map. Does not allocate.
 *   depth_m   [height, width] of the scanner's camera, float32 metres, row stride in bytes (0: dense). NaN, 0 and less: not
 *             seen; +inf: sky
 *   ranges    [num_bearings]: horizontal distance of the nearest obstacle in metres, known to 0.6 % on average and 1.6 % at
 *             most; +inf: none; NaN: too little was seen
 *   capacity  size of `ranges` in floats */
MVDE_API int32_t mvde_scan(mvde_scanner *scanner, const float *depth_m, int64_t depth_row_stride, float *ranges,
                           int64_t capacity);

/* ---- steady depth -------------------------------------------------------------------------------------------- */

/* How far a new frame moves the steady depth; differences are of logarithms of depth. Initialise with
 * mvde_stabilization_defaults(). */
typedef struct mvde_stabilization {
    uint32_t struct_size; /* sizeof(mvde_stabilization) */
    double scale_gain; /* share of a change of the frame's scale that is let through, above 0 and up to 1 */
    double scale_open, scale_full; /* changes of the scale from which on the share opens, and all of it is let through */
    double gain; /* the same of a pixel's own change */
    double open, full; /* of what a pixel or its past is outside the 3x3 pixels around the other */
    double cut_correlation; /* a frame whose correlation to the last one is below is a cut, */
    double cut_residual; /* if what is left after the motion is above this */
    double cut_share; /* and above this share of the picture's own spread */
    double max_gap_s; /* the past is dropped after so many seconds without a frame, where frames have times; above 0 */
} mvde_stabilization;

/* Set `settings` to those of Python's Stabilization, with which docs/video.md was measured. */
MVDE_API void mvde_stabilization_defaults(mvde_stabilization *settings);

/* Makes the maps of one stream of frames steady over time: see docs/video.md. Bit-identical to Python's. */
typedef struct mvde_stabilizer mvde_stabilizer;

/* Create a stabilizer of maps of `depth_kind`, a mvde_depth_kind. `settings` NULL: the defaults. `*stabilizer` receives the
 * handle; the caller owns it and releases it with mvde_stabilizer_destroy. At most 1024 can exist. */
MVDE_API int32_t mvde_stabilizer_create(int32_t depth_kind, const mvde_stabilization *settings,
                                        mvde_stabilizer **stabilizer);

/* Release the stabilizer, after a call in progress has returned. NULL is allowed. */
MVDE_API void mvde_stabilizer_destroy(mvde_stabilizer *stabilizer);

/* A frame's picture and map for mvde_stabilize. Initialise with mvde_steady_frame_defaults(). */
typedef struct mvde_steady_frame {
    uint32_t struct_size; /* sizeof(mvde_steady_frame) */
    int32_t reserved; /* 0 */
    const uint8_t *rgb; /* [picture_height, picture_width, 3]: what the map is of, at any resolution */
    int64_t picture_height, picture_width, picture_row_stride; /* pixels, up to 65536 a side; bytes, 0: dense */
    const float *map; /* [height, width], float32, in its own unit. Pixels without a value (not finite, or not above 0) are
                         returned as they are */
    int64_t height, width, row_stride; /* pixels, up to 65536 a side; bytes, 0: dense */
    int64_t view; /* what the maps depend on besides the picture, such as the camera, as a number of the caller's: where it
                      or the picture's aspect changes, the past is dropped. A map of another size alone goes on */
    double time_s; /* when the frame was taken, in seconds; NaN: not known */
} mvde_steady_frame;

/* Set `frame` to: dense, view 0, no time; pointers and sizes are to be filled in. */
MVDE_API void mvde_steady_frame_defaults(mvde_steady_frame *frame);

/* Make a frame's map steady. Allocates where a map or picture is larger than those before.
 *   steady      [height, width] float32, row stride in bytes (0: dense); may be the map's memory
 *   num_steady  receives how many frames the map goes back: 1 where it begins anew and is the frame's own; may be NULL
 * Fails for a time that is not after the last frame's, and changes nothing then. */
MVDE_API int32_t mvde_stabilize(mvde_stabilizer *stabilizer, const mvde_steady_frame *frame, float *steady,
                                int64_t steady_row_stride, int32_t *num_steady);

/* Forget the past: the next frame begins anew, and may have any time. */
MVDE_API int32_t mvde_stabilizer_reset(mvde_stabilizer *stabilizer);

/* ---- scale from the floor ------------------------------------------------------------------------------------ */

/* How the camera is mounted over the floor. Initialise with mvde_mounting_defaults(). */
typedef struct mvde_mounting {
    uint32_t struct_size; /* sizeof(mvde_mounting) */
    double height_m; /* of the camera's centre over the floor, 0.01 to 100; has no default */
    double pitch_deg; /* -80 to 80, positive: looks down. About the axis y (left) of ROS REP 103 */
    double roll_deg; /* -180 to 180, positive: its left side is up. About the axis x (forward) */
} mvde_mounting;

/* Set `mounting` to: no height, level. */
MVDE_API void mvde_mounting_defaults(mvde_mounting *mounting);

/* What the floor gave a frame; mvde_floor.status. */
typedef enum mvde_floor_status {
    MVDE_FLOOR_OFF = 0, /* the session has no mounting, or the frame has anchors */
    MVDE_FLOOR_USED = 1, /* the frame's own scale */
    MVDE_FLOOR_HELD = 2, /* the scale of the frames that its steady depth goes back to: it shows none itself */
    MVDE_FLOOR_UNSEEN = 3, /* none: too few rays meet at the floor */
    MVDE_FLOOR_UNEVEN = 4, /* none: they meet too loosely, or something lies below, as below a table */
    MVDE_FLOOR_UNKNOWN = 5 /* none: the mounting of this frame is not known */
} mvde_floor_status;

/* Scale of a frame's depth by the floor. */
typedef struct mvde_floor {
    uint32_t struct_size; /* sizeof(mvde_floor), to be set by the caller */
    int32_t status; /* mvde_floor_status */
    double scale; /* what depth is multiplied by; 1: it stays as it is */
    double share; /* of the rays that meet at the floor, of those that look down */
    double residual; /* mean relative distance of the rays' own scales from `scale` */
} mvde_floor;

/* Find the scale of a depth map from the floor in it. Does not allocate.
 *   rays      of the depth map's camera
 *   box       the pixels of the map that show the frame; NULL: all
 *   depth_m   [height, width] of the rays, float32 metres, row stride in bytes (0: dense). NaN, 0 and less: not seen; +inf:
 *             sky
 * The floor's scale is refused, with a status, where less than a twentieth of the pixels look down, less than a quarter of
 * these meet within 6 percent, their residual is above 0.06, or more than 2 percent of these lie below the floor. */
MVDE_API int32_t mvde_floor_scale(const mvde_rays *rays, const mvde_box *box, const mvde_mounting *mounting,
                                  const float *depth_m, int64_t depth_row_stride, mvde_floor *floor);

/* ---- sessions ------------------------------------------------------------------------------------------------- */

/* An engine written by `mvde build`: camera frame in, depth and patch statistics out, with the results of Python's
 * DepthRuntime. libmvde allocates in mvde_open only, not per frame. The backend is a separate shared library (such as
 * libmvde_openvino.so), loaded by the first mvde_open that needs it from libmvde's folder or the system's search path.
 * Sessions share no lock. */
typedef struct mvde_session mvde_session;

/* Meaning of a network's map; mvde_session_info.depth_kind. */
typedef enum mvde_depth_kind {
    MVDE_METRIC = 0, /* metres, whatever the camera */
    MVDE_METRIC_FOCAL = 1, /* metres for the canonical focal length; a session scales them to the frame's camera */
    MVDE_INVERSE_CANONICAL = 2, /* 1/metres for the canonical focal length; scaled likewise */
    MVDE_SCALE_INVARIANT = 3, /* depth up to an unknown scale */
    MVDE_INVERSE_RELATIVE = 4 /* inverse depth up to an unknown scale and shift */
} mvde_depth_kind;

/* Where metres that are not the network's own come from. */
typedef enum mvde_calibrated {
    MVDE_NOT_CALIBRATED = 0,
    MVDE_ONE_SCALE = 1, /* a calibration of a network that knows metres but for a factor */
    MVDE_FIXED_SCENE = 2, /* a calibration of a relative network: for a fixed camera in a fixed scene */
    MVDE_ANCHORS = 3 /* known depths in the frame itself */
} mvde_calibrated;

/* Options of mvde_open. Initialise with mvde_session_defaults(). */
typedef struct mvde_session_options {
    uint32_t struct_size; /* sizeof(mvde_session_options) */
    int32_t format; /* mvde_pixel_format of the frames */
    int64_t frame_height, frame_width; /* pixels; both 0: the model's input size */
    int32_t fit; /* mvde_fit; how frames are resampled and padded is always as the manifest states */
    int32_t num_threads; /* for resizing and statistics, 1 to 256, calling thread included; 0: one per CPU that the process
                             may use, at most 4. Inference has its own. */
    const mvde_camera *camera; /* of frames of that size; NULL: the manifest's canonical camera is assumed for the whole
                                  frame. Without effect on kinds that have no canonical camera. Read by mvde_open only */
    const int32_t *stats; /* mvde_stat of each column of the statistics, each once; read by mvde_open only */
    int32_t num_stats; /* number of columns; 0: those of the manifest */
    float invalid_m; /* value of invalid pixels of a float map: NaN, or 0 */
    int64_t deadline_ms; /* a result that takes longer is counted as late; 0: none */
    const char *calibration_path; /* file of `mvde calibrate`, which makes depth metric, or NULL. It is refused for another
                                     graph, frame size, fit or camera; `camera` NULL: the calibration's. Read by mvde_open
                                     only */
    const mvde_distortion *distortion; /* of `camera`, which must be given too; NULL: rectified frames. For points; depth
                                          does not depend on it. Read by mvde_open only */
    const mvde_scan_settings *scan; /* how the camera is mounted, for distances by bearing; NULL: none. Read by mvde_open
                                       only */
    const mvde_stabilization *stabilization; /* makes depth and all that follows from it steady over the frames, which are
                                                given in their order then; NULL: each frame for itself. Read by mvde_open
                                                only */
    const mvde_mounting *floor; /* how the camera is mounted over the floor, which then gives depth its scale where it is
                                   seen; NULL: no such scale. For maps in metres. Read by mvde_open only; see mvde_mount */
} mvde_session_options;

/* Set `options` to: RGB frames of the model's input size, MVDE_FIT_DEFAULT, threads by the CPUs, no camera, statistics of the
 * manifest, NaN for invalid pixels, no deadline, no calibration, no distortion, no scan, no stabilization, no scale from the
 * floor. */
MVDE_API void mvde_session_defaults(mvde_session_options *options);

/* Open an engine.
 *   engine_path  the engine's folder, file or manifest
 *   options      NULL: the defaults
 *   session      receives the handle; the caller owns it and releases it with mvde_close
 * The manifest is validated strictly, every file is checked against its SHA-256, and an engine for another CPU, GPU, library
 * version or graph is refused, with the same messages as in Python. Files are read once, so the bytes that were hashed are
 * the bytes that run; later changes on disk have no effect. If the global C++ locale groups digits, it is replaced by the
 * classic locale for the duration of the call. */
MVDE_API int32_t mvde_open(const char *engine_path, const mvde_session_options *options, mvde_session **session);

/* Close the session, after a call in progress has returned and a frame in flight has finished; the latter's results are
 * discarded. NULL is allowed. */
MVDE_API void mvde_close(mvde_session *session);

/* Output buffers of a frame. Initialise with mvde_outputs_defaults(). A NULL pointer is not computed; one must be given. */
typedef struct mvde_outputs {
    uint32_t struct_size; /* sizeof(mvde_outputs) */
    float *depth_m; /* [frame_height, frame_width], dense: the map, in metres or the unit that mvde_session_info states;
                       `invalid_m` of the options outside the part of the frame that the model sees */
    int64_t depth_capacity; /* size of `depth_m` in floats */
    uint16_t *depth_mm; /* [frame_height, frame_width], dense: millimetres; 0 where invalid or past 65.535 m. For maps in
                           metres and frames with anchors only */
    int64_t depth_mm_capacity; /* size of `depth_mm` in values */
    float *stats; /* [grid_rows * grid_columns, num_stats], dense; 0 for patches in letterbox padding */
    int64_t stats_capacity; /* size of `stats` in floats */
    mvde_tag tag; /* written by mvde_infer and mvde_wait: the tag of the frame that the results are of */
    int32_t calibrated; /* written likewise: mvde_calibrated; depth is metric unless it is MVDE_NOT_CALIBRATED */
    float *points; /* as mvde_points writes them, of the frame's camera: given, or assumed as mvde_session_info states. For
                      maps in metres and frames with anchors only */
    int64_t points_capacity; /* size of `points` in floats; see mvde_num_point_values */
    int32_t points_step; /* as mvde_points_options.step */
    const mvde_frame *points_colours; /* as mvde_points_options.colours; the frame's memory must still hold it */
    float *ranges; /* distances by bearing, as mvde_scan writes them, of a session that was opened with options.scan. For
                      maps in metres and frames with anchors only */
    int64_t ranges_capacity; /* size of `ranges` in floats; see mvde_session_scan */
    int32_t num_steady; /* written likewise: how many frames the depth goes back, 1 where it begins anew; 0 of a session
                           without a stabilization */
    mvde_floor floor; /* written by mvde_infer and mvde_wait: the scale that the floor gave the frame's depth */
} mvde_outputs;

/* Set `outputs` to: nothing wanted; points of every pixel, without colours, if they are. */
MVDE_API void mvde_outputs_defaults(mvde_outputs *outputs);

/* Compute depth and statistics of a frame, which has the format and size that the session was opened with. */
MVDE_API int32_t mvde_infer(mvde_session *session, const mvde_frame *frame, mvde_outputs *outputs);

/* Change how the camera of a session that was opened with options.floor is mounted, from the next frame on: such as the
 * pitch that an IMU tells. NULL: not known, which leaves depth as it is. `mounting` is read by this call only.
 * MVDE_ERROR_UNSUPPORTED for a session without options.floor. */
MVDE_API int32_t mvde_mount(mvde_session *session, const mvde_mounting *mounting);

/* Start inference on a frame and return without waiting. The frame is resized before the call returns, so its memory can be
 * reused. At most one frame is in flight: until mvde_wait has returned its results, another call fails with MVDE_ERROR_BUSY.
 * There is no queue, so no result is older than one frame. To overlap resizing and statistics with inference, alternate two
 * sessions. */
MVDE_API int32_t mvde_infer_async(mvde_session *session, const mvde_frame *frame);

/* Wait for the frame in flight for at most `timeout_ms` milliseconds (0: poll; negative: no limit), then compute `outputs`
 * on the calling thread, which need not be the one that started the frame. After MVDE_ERROR_TIMEOUT, or if `outputs` is
 * invalid, the frame is still in flight: call again. After MVDE_OK or any other error it is finished. MVDE_ERROR_IDLE if no
 * frame is in flight. */
MVDE_API int32_t mvde_wait(mvde_session *session, int64_t timeout_ms, mvde_outputs *outputs);

/* Bind device memory for inference without copies (TensorRT engines; others return MVDE_ERROR_UNSUPPORTED). The pointers in
 * `frame` and `outputs` are device pointers (on a Jetson, also unified memory). They are kept: the caller owns the memory
 * and must not free it before the session is closed or bound again. `depth_m` is [model_height, model_width] here, in the
 * map's unit, 0 where invalid; `depth_mm` must be NULL. Allocates, synchronises with the device and, if supported,
 * captures a frame as a CUDA graph. */
MVDE_API int32_t mvde_bind_device(mvde_session *session, const mvde_frame *frame, const mvde_outputs *outputs);

/* Enqueue resizing, inference and statistics of the bound frame on `stream`, a cudaStream_t (NULL: the default stream), and
 * return without waiting. Frames of one session must not overlap: order them by stream or events. Device errors are reported
 * by a later call, as usual for asynchronous work. */
MVDE_API int32_t mvde_infer_device(mvde_session *session, void *stream);

/* Forget the frames that a session with a stabilization has seen: the next one begins anew, and may have any time. Without
 * effect on others. */
MVDE_API int32_t mvde_session_reset(mvde_session *session);

/* Return the message of this session's last failed call; "" if none has failed or the session is closed. Owned by the
 * session; valid until its next call. */
MVDE_API const char *mvde_session_error(const mvde_session *session);

/* Properties of a session. Strings are owned by the session and valid until mvde_close. */
typedef struct mvde_session_info {
    uint32_t struct_size; /* sizeof(mvde_session_info), to be set by the caller */
    int32_t num_stats;
    int64_t frame_height, frame_width, model_height, model_width; /* pixels */
    int64_t grid_rows, grid_columns; /* patches */
    int32_t patch_size; /* pixels of the model's input */
    int32_t stats[MVDE_MAX_STATS]; /* mvde_stat of each column, then -1 */
    int32_t depth_kind; /* mvde_depth_kind; MVDE_METRIC with a calibration */
    int32_t calibrated; /* mvde_calibrated */
    int32_t camera_assumed; /* 1: the kind has a canonical camera, and the frames' was not given */
    double camera_factor; /* f / f_canonical, by which depth is multiplied (an inverse map is divided by it) */
    float min_valid, max_valid; /* range of the network's map, before a calibration */
    int32_t fit; /* mvde_fit, as chosen or as the manifest states */
    mvde_box source_box, target_box; /* the part of the frame that the model sees, and the part of its input it fills */
    const char *name, *engine_id, *backend, *library_version, *device;
    const char *unit; /* of the map: "m", "1" (depth up to a scale) or "1/u" (inverse depth) */
    const char *executed_precision; /* as reported by the inference library */
    const char *execution; /* how frames are executed, such as "CUDA graph" */
    mvde_camera camera; /* of the frames, as given or assumed; all 0 where there is neither */
} mvde_session_info;

/* Get the properties of a session. Allowed while another call uses it. */
MVDE_API int32_t mvde_session_query(const mvde_session *session, mvde_session_info *info);

/* Get the properties of the scans of a session that was opened with options.scan; MVDE_ERROR_UNSUPPORTED without it. Allowed
 * while another call uses it. */
MVDE_API int32_t mvde_session_scan(const mvde_session *session, mvde_scan_info *info);

/* What became of a session's frames since mvde_open; those of mvde_infer_device are not counted. */
typedef struct mvde_session_counters {
    uint32_t struct_size; /* sizeof(mvde_session_counters), to be set by the caller */
    int64_t num_frames; /* results delivered */
    int64_t num_late; /* of those, later than `deadline_ms` after their mvde_infer or mvde_infer_async was called */
    int64_t num_dropped; /* frames refused with MVDE_ERROR_BUSY: one was in flight, or the session in use */
} mvde_session_counters;

/* Get the counters of a session. Allowed while another call uses it. */
MVDE_API int32_t mvde_session_count(const mvde_session *session, mvde_session_counters *counters);

/* ---- deadlines ------------------------------------------------------------------------------------------------ */

/* Chooses among engines of one model the largest that holds a deadline, from what the last frames took: down as soon as a
 * frame says so, up after ten that allow it, and only where frames in time have paid for the late ones, so that at most one in
 * a hundred is late. The same decisions as Python's DeadlinePolicy. For programs with sessions of their own; a group has one.
 * One call at a time. */
typedef struct mvde_deadline mvde_deadline;

/* Make a policy.
 *   costs_ms     what each engine's network takes alone, from the smallest engine to the largest, num_engines (1 to 16)
 *   deadline_ms  from a frame's capture to its result */
MVDE_API int32_t mvde_deadline_create(const double *costs_ms, int32_t num_engines, double deadline_ms,
                                      mvde_deadline **policy);

/* Release the policy. NULL is allowed. */
MVDE_API void mvde_deadline_destroy(mvde_deadline *policy);

/* Choose the engine of the next frame, which is `age_ms` old; `index` receives it, 0 for the smallest. */
MVDE_API int32_t mvde_deadline_choose(mvde_deadline *policy, double age_ms, int32_t *index);

/* Tell what a frame of engine `index` took: its network alone, and all from its capture, of which `age_ms` had passed when
 * the engine was chosen. */
MVDE_API int32_t mvde_deadline_observe(mvde_deadline *policy, int32_t index, double network_ms, double latency_ms,
                                       double age_ms);

/* What became of the frames. */
typedef struct mvde_deadline_counters {
    uint32_t struct_size; /* sizeof(mvde_deadline_counters), to be set by the caller */
    int32_t level; /* engine of the last choice, 0 for the smallest */
    int32_t is_unheld; /* 1: no engine held the deadline for ten frames in a row, now or before; to be said once */
    int64_t num_frames;
    int64_t num_late; /* of these, after their deadline */
    int64_t num_unheld; /* of these, late with the smallest engine, and not for having waited, except for another such one */
    int64_t num_switches;
} mvde_deadline_counters;

/* Get the counters of a policy. */
MVDE_API int32_t mvde_deadline_count(const mvde_deadline *policy, mvde_deadline_counters *counters);

/* Sessions of one model at several resolutions: each frame has the largest that holds the deadline. Statistics are of one grid
 * whatever the resolution: mean, var, min, max and valid are exact, grad is per pixel of the smallest. One call at a time;
 * libmvde allocates in mvde_group_open only, not per frame. */
typedef struct mvde_group mvde_group;

/* Open engines in any order.
 *   options                  of every session, as in mvde_open, with the size of the frames; calibration_path is the folder that
 *                            holds NAME-HxW.calibration.json of each engine, all of the same frames
 *   deadline_ms              from a frame's capture to its result
 *   grid_rows, grid_columns  patches, which must divide every resolution into squares; both 0: near the smallest engine's
 * Engines of different models, kinds, weights or preprocessing, of one resolution or of different aspects are refused. What
 * each takes alone is measured here. */
MVDE_API int32_t mvde_group_open(const char *const *engine_paths, int32_t num_engines, const mvde_session_options *options,
                                 double deadline_ms, int64_t grid_rows, int64_t grid_columns, mvde_group **group);

/* Close the group, after a call in progress has returned. NULL is allowed. */
MVDE_API void mvde_group_close(mvde_group *group);

/* Compute depth and statistics of a frame that is `age_ms` old, as mvde_infer; `index`, if not NULL, receives the engine that
 * was used, 0 for the smallest. */
MVDE_API int32_t mvde_group_infer(mvde_group *group, const mvde_frame *frame, double age_ms, mvde_outputs *outputs,
                                  int32_t *index);

/* Change the mounting of the next frames, as mvde_mount, for every engine. */
MVDE_API int32_t mvde_group_mount(mvde_group *group, const mvde_mounting *mounting);

/* Forget the frames so far, as mvde_session_reset: steady depth goes on from engine to engine else. */
MVDE_API int32_t mvde_group_reset(mvde_group *group);

/* An engine of a group. */
typedef struct mvde_group_engine {
    uint32_t struct_size; /* sizeof(mvde_group_engine), to be set by the caller */
    double cost_ms; /* what its network takes alone: the shortest of a few runs in mvde_group_open */
    int64_t memory_bytes; /* growth of the process's resident memory from loading and running it; 0 where unknown */
    int64_t num_frames; /* inferred with it */
} mvde_group_engine;

/* Get the properties of engine `index`, 0 for the smallest: of its session, and as one of the group; either may be NULL.
 * MVDE_ERROR_ARGUMENT beyond the last one. Allowed while no other call uses the group. */
MVDE_API int32_t mvde_group_query(const mvde_group *group, int32_t index, mvde_session_info *info,
                                  mvde_group_engine *engine);

/* Get the counters of a group. Allowed while no other call uses it. */
MVDE_API int32_t mvde_group_count(const mvde_group *group, mvde_deadline_counters *counters);

#ifdef __cplusplus
}
#endif

#endif /* MVDE_MVDE_H */
