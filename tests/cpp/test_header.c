/* The header is C99, and the library is usable from C. */
#include "mvde/mvde.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    static float depth[16 * 32], stats[2];
    const int32_t columns[] = {MVDE_MEAN};
    mvde_map map;
    mvde_stats_request request;
    int i;
    if (mvde_version() != MVDE_VERSION) return 1;
    for (i = 0; i < 16 * 32; ++i) depth[i] = i % 32 < 16 ? 1.5F : 2.5F;
    memset(&map, 0, sizeof map);
    map.data = depth;
    map.batch = 1;
    map.height = 16;
    map.width = 32;
    mvde_stats_request_defaults(&request);
    request.patch_size = 16;
    request.num_stats = 1;
    request.stats = columns;
    request.out = stats;
    request.capacity = 2;
    if (mvde_patch_stats(&map, 0.0F, INFINITY, &request, NULL) != MVDE_OK) {
        puts(mvde_last_error());
        return 2;
    }
    return stats[0] == 1.5F && stats[1] == 2.5F ? 0 : 3;
}
