// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/check.h"

namespace trireme::detail {

void assertion_failed(const std::string& expression, const char* file, int line,
                      const std::string& message) {
  throw InternalError(
      fmt::format("{}:{}: {} does not hold: {}. This is a bug in Trireme, please "
                  "report it.",
                  file, line, expression, message));
}

}  // namespace trireme::detail
