// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <exception>
#include <functional>
#include <string>

#include "trireme/base/error.h"

namespace trireme::testing {

// "TypeOfError: message"; of a lost peer "PeerLostError 2: message", with its rank.
inline std::string error_text(const std::exception& error) {
  std::string type = "other error";
  if (const auto* lost = dynamic_cast<const PeerLostError*>(&error)) {
    type = "PeerLostError " + std::to_string(lost->rank());
  } else if (dynamic_cast<const TimeoutError*>(&error) != nullptr) {
    type = "TimeoutError";
  } else if (dynamic_cast<const CommError*>(&error) != nullptr) {
    type = "CommError";
  } else if (dynamic_cast<const ConfigError*>(&error) != nullptr) {
    type = "ConfigError";
  } else if (dynamic_cast<const ShapeError*>(&error) != nullptr) {
    type = "ShapeError";
  }
  return type + ": " + error.what();
}

// error_text() of what the action throws, else "no error".
inline std::string failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error_text(error);
  }
  return "no error";
}

}  // namespace trireme::testing
