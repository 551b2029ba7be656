// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/bench/build_info.h"

#include "trireme/comm/bench/build_commit.h"  // made by cmake/TriremeCommit.cmake

namespace trireme {

std::string_view build_commit() { return TRIREME_COMMIT; }
std::string_view build_type() { return TRIREME_BUILD_TYPE; }

}  // namespace trireme
