/* mvde.h - the C interface of libmvde: engines, depth post-processing and image resizing for robots.
 *
 * Conventions
 *   - C99. No function throws, prints, aborts, or keeps a pointer that it was given, except where it says so.
 *   - Buffers belong to the caller. Sizes are (height, width) in pixels; strides are in bytes and may be negative.
 *   - Functions that can fail return MVDE_OK (0) or a negative mvde_status. mvde_strerror() names the kind of error;
 *     mvde_last_error() says, for the calling thread, what was given, what was expected and what to do.
 *   - Everything here may be called from several threads at once, except that one mvde_workers, mvde_resizer or
 *     mvde_session serves one call at a time: a second call that comes meanwhile is refused with MVDE_ERROR_BUSY
 *     (mvde_session_query is never in the way). Consecutive calls may come from different threads.
 *   - A handle that was destroyed, or is none, is recognised: calls with it give MVDE_ERROR_CLOSED, destroying it does
 *     nothing. 1024 workers, 4096 resizers and 1024 sessions can be open at once.
 *   - Results do not depend on the floating-point environment of the caller (rounding, traps, flushing of denormals), which
 *     every function leaves as it was.
 *   - In a child after fork(), workers and resizers of the parent go on (on the calling thread alone, with the same
 *     results). Sessions do not, nor can new ones be opened with an inference library that the parent has used: calls
 *     give MVDE_ERROR_FORKED. Destroying and closing work and wait for nobody.
 *   - Depth is in metres, except 16-bit output, which is in millimetres with 0 for "no depth" (ROS REP 118).
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

/* MAJOR changes when a caller must be changed, MINOR when something is added. */
#define MVDE_VERSION_MAJOR 0
#define MVDE_VERSION_MINOR 1
#define MVDE_VERSION_PATCH 0
#define MVDE_VERSION (MVDE_VERSION_MAJOR * 10000 + MVDE_VERSION_MINOR * 100 + MVDE_VERSION_PATCH)

/* The MVDE_VERSION that the library was built with. Compare its major (and, before 1.0, minor) part with the header's. */
MVDE_API int32_t mvde_version(void);

/* ---- errors -------------------------------------------------------------------------------------------------- */

typedef enum mvde_status {
    MVDE_OK = 0,
    MVDE_ERROR_ARGUMENT = -1,  /* a NULL pointer, an unknown enumerator, or a number out of range */
    MVDE_ERROR_SHAPE = -2,     /* sizes do not fit the patch, each other, or 64-bit arithmetic */
    MVDE_ERROR_ALIGNMENT = -3, /* a pointer or stride is not a multiple of its element's size */
    MVDE_ERROR_OVERLAP = -4,   /* an output overlaps the input or another output */
    MVDE_ERROR_CAPACITY = -5,  /* the output buffer is too small */
    MVDE_ERROR_KERNEL = -6,    /* the implementation asked for is unknown or cannot run on this CPU */
    MVDE_ERROR_MEMORY = -7,    /* out of memory; only functions that create something allocate */
    MVDE_ERROR_BUSY = -8,      /* the handle is in use by another call */
    MVDE_ERROR_THREAD = -9,    /* the operating system would not start a thread */
    MVDE_ERROR_ARTIFACT = -10, /* there is no engine at the path, or it cannot be read */
    MVDE_ERROR_MANIFEST = -11, /* the engine's manifest is missing, malformed, or not one that a session can run */
    MVDE_ERROR_HASH = -12,     /* a file is not the one that its manifest describes */
    MVDE_ERROR_INCOMPATIBLE = -13, /* the engine was built for another machine, library version or graph */
    MVDE_ERROR_BACKEND = -14,      /* the inference library is missing or failed */
    MVDE_ERROR_TIMEOUT = -15,      /* the engine is not done yet; the frame is still in flight */
    MVDE_ERROR_IDLE = -16,         /* there is nothing to wait for or to run */
    MVDE_ERROR_CLOSED = -17,       /* the handle was closed, or is none */
    MVDE_ERROR_NO_DEVICE = -18,    /* the engine needs a GPU, and there is none that works */
    MVDE_ERROR_UNSUPPORTED = -19,  /* this engine's backend cannot do it */
    MVDE_ERROR_FORKED = -20        /* the inference library was used before this process was forked */
} mvde_status;

/* Room for the longest message, its end included; a longer one is cut. */
#define MVDE_ERROR_BYTES 2048

/* One sentence for a status; never NULL, also for numbers that are no status. */
MVDE_API const char *mvde_strerror(int32_t status);

/* What went wrong in the last call on this thread that failed; "" if none has. Valid until the thread's next call. */
MVDE_API const char *mvde_last_error(void);

/* ---- implementations ----------------------------------------------------------------------------------------- */

/* The post-processing kernel exists as "scalar", "avx2", "avx512" and "neon". All give the same bits. The fastest one
 * that this CPU runs is chosen at the first call; the environment variable MVDE_KERNEL, read at that moment, forces one.
 * A forced one that does not exist or cannot run is an error of every call (MVDE_ERROR_KERNEL), not a silent fallback. */

/* Name of the implementation that calls will use, or NULL if MVDE_KERNEL names one that cannot run here. */
MVDE_API const char *mvde_kernel(void);

/* Name of the implementation that did the work of this thread's last mvde_postprocess or mvde_patch_stats, written by
 * the implementation itself; "" before the first. */
MVDE_API const char *mvde_last_kernel(void);

/* 1 if `name` is built in and runs on this CPU, else 0. */
MVDE_API int32_t mvde_kernel_is_available(const char *name);

/* Forces an implementation for the whole process from now on; NULL goes back to the choice by CPU and MVDE_KERNEL. */
MVDE_API int32_t mvde_set_kernel(const char *name);

/* ---- threads ------------------------------------------------------------------------------------------------- */

/* Threads that share the work of a call with the caller. Results do not depend on their number. */
typedef struct mvde_workers mvde_workers;

/* `num_threads` counts the caller: 1 starts none. 1 to 256. */
MVDE_API int32_t mvde_workers_create(int32_t num_threads, mvde_workers **workers);
MVDE_API void mvde_workers_destroy(mvde_workers *workers); /* NULL is allowed */

/* ---- depth and patch statistics ------------------------------------------------------------------------------ */

typedef enum mvde_dtype {
    MVDE_FLOAT32 = 0,
    MVDE_FLOAT16 = 1,  /* IEEE binary16 */
    MVDE_BFLOAT16 = 2, /* the upper half of a float32 */
    MVDE_UINT16 = 3    /* output only: millimetres */
} mvde_dtype;

/* A batch of single-channel maps in the caller's memory. A stride of 0 means dense. */
typedef struct mvde_map {
    void *data; /* only read where the map is an input */
    int32_t dtype;
    int32_t reserved; /* 0 */
    int64_t batch, height, width;
    int64_t batch_stride, row_stride, pixel_stride; /* bytes, multiples of the element's size */
} mvde_map;

/* Depth in metres from the raw value x of a network. */
typedef enum mvde_conversion {
    MVDE_LINEAR = 0,     /* scale * x + shift */
    MVDE_INVERSE = 1,    /* 1 / (scale * x + shift): inverse depth, disparity */
    MVDE_EXP = 2,        /* exp(scale * x + shift) */
    MVDE_LOG_SIGMOID = 3 /* exp(ln min + sigmoid(scale * x + shift) * (ln max - ln min)): mvde's metric head */
} mvde_conversion;

/* What becomes of a finite, positive depth outside [min_depth_m, max_depth_m]. */
typedef enum mvde_range {
    MVDE_REJECT = 0, /* it is invalid */
    MVDE_CLAMP = 1   /* it is moved to the nearest bound */
} mvde_range;

/* Start from mvde_postprocess_defaults(): linear, scale 1, shift 0, reject, no bounds, invalid pixels written as NaN. */
typedef struct mvde_postprocess_options {
    uint32_t struct_size; /* sizeof(mvde_postprocess_options) */
    int32_t conversion;   /* mvde_conversion */
    float scale, shift;
    int32_t range;      /* mvde_range */
    float min_depth_m;  /* 0 <= min < max; 0 and INFINITY mean no bound; MVDE_LOG_SIGMOID needs 0 < min and finite max */
    float max_depth_m;  /* bounds are inclusive */
    float invalid_m;    /* written to a float32 map where no valid depth is; 16-bit maps get 0 there */
} mvde_postprocess_options;

MVDE_API void mvde_postprocess_defaults(mvde_postprocess_options *options);

/* A pixel is valid if it is finite, > 0, inside the bounds that are given, and at most this; the squares of larger ones,
 * summed over a patch, would overflow. In metres or the model's own unit. */
#define MVDE_LARGEST_DEPTH 1e16f

typedef enum mvde_stat {
    MVDE_MEAN = 0,  /* m */
    MVDE_VAR = 1,   /* m^2, population variance */
    MVDE_GRAD = 2,  /* m/px, mean of sqrt(gx^2 + gy^2): central differences over the whole image, borders replicated; a
                       difference that touches an invalid pixel is 0 */
    MVDE_MIN = 3,   /* m */
    MVDE_MAX = 4,   /* m */
    MVDE_VALID = 5  /* fraction of the patch's pixels that are valid, 0 to 1 */
} mvde_stat;

/* Statistics to compute: out is [batch, rows * columns, num_stats] float32, dense, patches in row-major order. A pixel
 * counts where it is finite, > 0 and inside the range. A patch without such a pixel has 0 everywhere. */
typedef struct mvde_stats_request {
    int32_t patch_size;   /* pixels; the map's sides are multiples of it */
    int32_t num_stats;    /* 1 to 6 */
    const int32_t *stats; /* mvde_stat, in the order of the columns */
    float *out;
    int64_t capacity;     /* floats that fit into `out` */
} mvde_stats_request;

/* Number of floats that a request writes, or a negative mvde_status. */
MVDE_API int64_t mvde_num_patch_stats(int64_t batch, int64_t height, int64_t width, int32_t patch_size, int32_t num_stats);

/* Raw network output -> depth and statistics in one pass. `options`, `depth`, `request` and `workers` may be NULL:
 * default options, no depth map wanted, no statistics wanted, the calling thread alone. `depth` is float32 or uint16 of
 * the same shape as `raw`; a depth past 65.535 m does not fit 16 bits and becomes 0. Depths are meant to lie in
 * [1e-18, 1e18] m: outside, squares leave float32's range. Nothing is allocated. */
MVDE_API int32_t mvde_postprocess(const mvde_map *raw, const mvde_postprocess_options *options, const mvde_map *depth,
                                  const mvde_stats_request *request, mvde_workers *workers);

/* Statistics of a map that is in metres already. Bounds are rounded to the map's own dtype first, so that a depth that
 * was clamped to a bound in that dtype is inside it. */
MVDE_API int32_t mvde_patch_stats(const mvde_map *depth, float min_depth_m, float max_depth_m,
                                  const mvde_stats_request *request, mvde_workers *workers);

/* ---- camera images ------------------------------------------------------------------------------------------- */

typedef enum mvde_pixel_format {
    MVDE_RGB = 0,
    MVDE_BGR = 1,
    MVDE_GREY = 2,
    MVDE_NV12 = 3, /* luma, then interleaved Cb Cr at half size; BT.601, limited range; even sides */
    MVDE_YUYV = 4  /* Y0 Cb Y1 Cr; BT.601, limited range; even width */
} mvde_pixel_format;

/* A camera frame in the caller's memory, 8 bits per channel. A stride of 0 means dense. */
typedef struct mvde_frame {
    const uint8_t *data;
    const uint8_t *chroma; /* NV12: the second plane; NULL: it follows the first. Else NULL. */
    int32_t format;        /* mvde_pixel_format */
    int32_t reserved;      /* 0 */
    int64_t height, width;
    int64_t row_stride, chroma_row_stride; /* bytes */
} mvde_frame;

typedef enum mvde_fit {
    MVDE_STRETCH = 0,   /* the whole image fills the input; the aspect ratio changes */
    MVDE_LETTERBOX = 1, /* the whole image keeps its aspect ratio; grey (128) bars fill the rest */
    MVDE_CROP = 2       /* the middle of the image fills the input */
} mvde_fit;

/* bottom and right are exclusive. */
typedef struct mvde_box {
    int64_t top, left, bottom, right;
} mvde_box;

/* Resizes frames of one format and size to one resolution, and maps depth back. Created once: a frame allocates
 * nothing. Bilinear, with anti-aliasing where the image shrinks: bit for bit Pillow's BILINEAR along x, then along y. */
typedef struct mvde_resizer mvde_resizer;

MVDE_API int32_t mvde_resizer_create(int32_t format, int64_t source_height, int64_t source_width, int64_t target_height,
                                     int64_t target_width, int32_t fit, mvde_resizer **resizer);
MVDE_API void mvde_resizer_destroy(mvde_resizer *resizer); /* NULL is allowed */

/* `source` of the frame is resized onto `target` of the model's input. Either pointer may be NULL. */
MVDE_API int32_t mvde_resizer_boxes(const mvde_resizer *resizer, mvde_box *source, mvde_box *target);

/* Writes RGB bytes [target_height, target_width, 3]; a row stride of 0 means dense. `workers` may be NULL. */
MVDE_API int32_t mvde_resize(mvde_resizer *resizer, const mvde_frame *frame, uint8_t *rgb, int64_t rgb_row_stride,
                             mvde_workers *workers);

/* Depth in metres at the model's resolution -> at the frame's own pixels, bilinear; 0 where the model did not see the
 * frame. Both are float32; row strides in bytes, 0 for dense. `workers` may be NULL. */
MVDE_API int32_t mvde_depth_to_source(mvde_resizer *resizer, const float *depth_m, int64_t depth_row_stride, float *source_m,
                                      int64_t source_row_stride, mvde_workers *workers);

/* ---- sessions ------------------------------------------------------------------------------------------------- */

/* An engine that `mvde build` wrote, with everything around it: a camera frame in, depth and patch statistics out. It
 * gives what Python's DepthRuntime gives. Opened once: a frame then allocates nothing in libmvde. The engine's inference
 * library comes as a shared object of its own (libmvde_openvino.so), which lies beside libmvde or where the system looks
 * for libraries; it is loaded by the first mvde_open that needs it. Sessions share no lock. */
typedef struct mvde_session mvde_session;

/* Start from mvde_session_defaults(): RGB frames of the model's own size, stretched, one thread. */
typedef struct mvde_session_options {
    uint32_t struct_size; /* sizeof(mvde_session_options) */
    int32_t format;       /* mvde_pixel_format of the frames */
    int64_t frame_height, frame_width; /* pixels; 0 means the model's */
    int32_t fit;          /* mvde_fit */
    int32_t num_threads;  /* for resizing and statistics, 1 to 256, the caller included; the engine has its own */
} mvde_session_options;

MVDE_API void mvde_session_defaults(mvde_session_options *options);

/* `engine_path` is the engine's folder, its file or its manifest. The manifest is read strictly, every file is compared
 * with its SHA-256, and an engine for another CPU, library version or graph is refused, with Python's words in
 * mvde_last_error(). What was hashed is what runs: the files are read once, and what becomes of them afterwards does not
 * matter. `options` may be NULL. A program whose global C++ locale groups digits has a classic one while the call lasts. */
MVDE_API int32_t mvde_open(const char *engine_path, const mvde_session_options *options, mvde_session **session);

/* Awaits a call that is inside and a frame that is in flight, whose results are lost. NULL is allowed. */
MVDE_API void mvde_close(mvde_session *session);

/* Where the results go; either pointer may be NULL, not both. */
typedef struct mvde_outputs {
    float *depth_m; /* [frame_height, frame_width], dense; 0 where the model did not see the frame */
    int64_t depth_capacity; /* floats that fit into `depth_m` */
    float *stats;   /* [grid_rows * grid_columns, num_stats], dense; patches in the bars of a letterbox are 0 */
    int64_t stats_capacity; /* floats that fit into `stats` */
} mvde_outputs;

/* Depth and statistics of a frame of the format and size that the session was opened for. */
MVDE_API int32_t mvde_infer(mvde_session *session, const mvde_frame *frame, const mvde_outputs *outputs);

/* Begins a frame and comes back while the engine works on it. The frame has been read (resized) by then: its memory is
 * the caller's again. One frame may be in flight: another one is refused with MVDE_ERROR_BUSY until mvde_wait has given
 * the results of the first. Nothing queues, so that no result is older than one frame; to overlap the resizing and the
 * statistics of neighbouring frames with the engine, alternate two sessions. */
MVDE_API int32_t mvde_infer_async(mvde_session *session, const mvde_frame *frame);

/* The results of the frame in flight: waits for the engine for at most `timeout_ms` milliseconds (0: only asks; below 0:
 * as long as it takes), then computes what `outputs` asks for in the calling thread, which may be another one than the
 * frame began in. After MVDE_ERROR_TIMEOUT, or where `outputs` is refused, the frame is still in flight: call again.
 * After MVDE_OK or any other error it is over. MVDE_ERROR_IDLE where no frame is in flight. */
MVDE_API int32_t mvde_wait(mvde_session *session, int64_t timeout_ms, const mvde_outputs *outputs);

/* Frames and results in a GPU's memory (TensorRT engines; others give MVDE_ERROR_UNSUPPORTED), without copies. The pointers
 * of `frame` and `outputs` are the device's (on a Jetson, unified memory serves as well), and are kept: they must live
 * until the session is closed or bound again. `depth_m` is [model_height, model_width] here: metres, 0 where none is
 * valid. Binding allocates, waits for the device and, where it can, captures a frame as one CUDA graph. */
MVDE_API int32_t mvde_bind_device(mvde_session *session, const mvde_frame *frame, const mvde_outputs *outputs);

/* Queues resizing, engine and statistics of what the bound frame's memory holds on `stream`, a cudaStream_t (NULL: the
 * default stream), and comes back. One frame at a time: the caller orders frames of one session by its stream or events.
 * Errors of the device show in a later call, as with everything on a stream. */
MVDE_API int32_t mvde_infer_device(mvde_session *session, void *stream);

/* What went wrong in this session's last call that failed; "" if none has, or the session is closed. Valid until its next
 * call. */
MVDE_API const char *mvde_session_error(const mvde_session *session);

/* What runs. Texts are valid until mvde_close. */
typedef struct mvde_session_info {
    uint32_t struct_size; /* sizeof(mvde_session_info), set by the caller */
    int32_t num_stats;
    int64_t frame_height, frame_width, model_height, model_width; /* pixels */
    int64_t grid_rows, grid_columns;                              /* patches */
    int32_t patch_size;                                           /* pixels of the model */
    int32_t stats[6]; /* mvde_stat of each column, then -1 */
    int32_t is_metric; /* 1: depth is in metres; 0: in the model's own relative unit */
    float min_depth_m, max_depth_m;
    const char *name, *unit, *engine_id, *backend, *library_version, *device;
    const char *executed_precision; /* what the library says it computes in */
    const char *execution;          /* how a frame runs, such as "CUDA graph" */
} mvde_session_info;

MVDE_API int32_t mvde_session_query(const mvde_session *session, mvde_session_info *info);

#ifdef __cplusplus
}
#endif

#endif /* MVDE_MVDE_H */
