// The records of a manifest: the keys and types of the dataclasses in mvde/manifest.py and mvde/records.py, in their order.
#pragma once

#include "session/schema.hpp"

namespace mvde::internal {

extern const Record kGraphManifest, kEngineManifest;

}  // namespace mvde::internal
