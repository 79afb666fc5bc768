// The rotation of a mounting, with the bits of mvde/runtime/scan_table.py.
#pragma once

namespace mvde::internal {

struct Rotation {
    double rows[3][3];
};

// From the optical frame (x right, y down, z forward) to the level one (forward, left, up).
Rotation level_rotation(double pitch_deg, double roll_deg);

}  // namespace mvde::internal
