// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/error.h"

namespace trireme {

int exit_code(const std::exception& error) {
  const bool users = dynamic_cast<const ConfigError*>(&error) != nullptr ||
                     dynamic_cast<const ShapeError*>(&error) != nullptr ||
                     dynamic_cast<const DataError*>(&error) != nullptr ||
                     dynamic_cast<const CheckpointError*>(&error) != nullptr;
  return users ? 2 : 1;
}

}  // namespace trireme
