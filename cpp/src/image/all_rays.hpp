// The rays behind mvde_rays handles.
#pragma once

#include "handles.hpp"
#include "image/rays.hpp"

namespace mvde::internal {

using AllRays = Handles<Rays, mvde_rays, 1024>;

AllRays &all_rays();

// Returns a mvde_status, with a message, for rays that are not open.
int refuse(AllRays::Access access);

}  // namespace mvde::internal
