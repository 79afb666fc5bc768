/* Statistics of one photograph, in C99: infer_c ENGINE_FOLDER PHOTO.ppm STATS.f32
 *
 * PHOTO.ppm is binary 8-bit RGB (P6). Writes float32 [patches, statistics] to STATS.f32 and prints the nearest and the
 * farthest patch. */
#include <mvde/mvde.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct photograph {
    int height, width;
    uint8_t *rgb;
};

static int report(const char *message) {
    fprintf(stderr, "infer_c: %s\n", message);
    return 1;
}

static int read_ppm(const char *path, struct photograph *photograph) {
    FILE *stream = fopen(path, "rb");
    size_t size = 0;
    int most = 0;
    if (!stream) return 0;
    if (fscanf(stream, "P6 %d %d %d", &photograph->width, &photograph->height, &most) == 3 && most == 255 &&
        fgetc(stream) != EOF && photograph->height > 0 && photograph->width > 0 && photograph->height <= 65536 &&
        photograph->width <= 65536) {
        size = (size_t)photograph->height * (size_t)photograph->width * 3;
        photograph->rgb = malloc(size);
        if (photograph->rgb && fread(photograph->rgb, 1, size, stream) != size) size = 0;
    }
    fclose(stream);
    return photograph->rgb && size;
}

static int write_floats(const char *path, const float *values, size_t count) {
    FILE *stream = fopen(path, "wb");
    int is_written = stream && fwrite(values, sizeof *values, count, stream) == count;
    if (stream && fclose(stream)) is_written = 0;
    return is_written;
}

/* Requires that the first statistic is the mean. */
static void print_nearest_and_farthest(const mvde_session_info *info, const float *stats) {
    const int64_t num_patches = info->grid_rows * info->grid_columns;
    int64_t nearest = 0, farthest = 0, i;
    for (i = 1; i < num_patches; ++i) {
        if (stats[i * info->num_stats] < stats[nearest * info->num_stats]) nearest = i;
        if (stats[i * info->num_stats] > stats[farthest * info->num_stats]) farthest = i;
    }
    printf("%s %s: nearest patch %d at %.2f %s, farthest patch %d at %.2f %s\n", info->name, info->engine_id, (int)nearest,
           stats[nearest * info->num_stats], info->unit, (int)farthest, stats[farthest * info->num_stats], info->unit);
}

static int run(mvde_session *session, const struct photograph *photograph, const char *out) {
    mvde_session_info info;
    mvde_frame frame;
    mvde_outputs outputs;
    size_t num_stats;
    int failed = 0;
    info.struct_size = sizeof info;
    mvde_frame_defaults(&frame);
    if (mvde_session_query(session, &info)) return report(mvde_last_error());
    num_stats = (size_t)(info.grid_rows * info.grid_columns * info.num_stats);
    frame.data = photograph->rgb;
    frame.format = MVDE_RGB;
    frame.height = photograph->height;
    frame.width = photograph->width;
    mvde_outputs_defaults(&outputs);
    outputs.stats = malloc(num_stats * sizeof *outputs.stats);
    outputs.stats_capacity = (int64_t)num_stats;
    if (!outputs.stats) return report("no memory");
    if (mvde_infer(session, &frame, &outputs)) failed = report(mvde_session_error(session));
    else if (!write_floats(out, outputs.stats, num_stats)) failed = report("cannot write the statistics");
    else print_nearest_and_farthest(&info, outputs.stats);
    free(outputs.stats);
    return failed;
}

int main(int argc, char **argv) {
    struct photograph photograph = {0, 0, NULL};
    mvde_session_options options;
    mvde_session *session = NULL;
    int failed;
    if (argc != 4) return report("usage: infer_c ENGINE_FOLDER PHOTO.ppm STATS.f32");
    if (!read_ppm(argv[2], &photograph)) return report("the photograph is not a binary 8-bit RGB PPM file (P6)");
    mvde_session_defaults(&options);
    options.frame_height = photograph.height;
    options.frame_width = photograph.width;
    failed = mvde_open(argv[1], &options, &session) ? report(mvde_last_error()) : run(session, &photograph, argv[3]);
    mvde_close(session);
    free(photograph.rgb);
    return failed;
}
