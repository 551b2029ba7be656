// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What this program was built from, for the head of a table of figures.
#pragma once

#include <string_view>

namespace trireme {

// "ff0f7e7", with "-dirty" where files differed from it; "unknown" outside a git checkout.
std::string_view build_commit();
// "Release", "Debug", ...
std::string_view build_type();

}  // namespace trireme
