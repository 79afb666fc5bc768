// The records of a manifest: keys and types of the dataclasses in mvde/manifest.py and mvde/records.py, in the same order.
#pragma once

#include "session/schema.hpp"

namespace mvde::internal {

extern const Record kGraphManifest, kEngineManifest;

}  // namespace mvde::internal
