// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What a run came to: summary.json for programs, a table for people, from the same list.
//
//   const Fields fields = {{"parameters", 10'623'104}, {"validation_loss", 3.21}};
//   write_summary(run + "/summary.json", fields);
//   std::fputs(format_table(fields).c_str(), stdout);
//
//     parameters       10,623,104
//     validation_loss  3.21
#pragma once

#include <string>

#include "trireme/train/fields.h"

namespace trireme {

// Replaces or creates path with one JSON object, a name per line, in order. Atomic: see
// checkpoint/atomic_file.h. Throws CheckpointError with the system's reason.
void write_summary(const std::string& path, const Fields& fields);

// One line per field, values aligned: integers grouped by thousands, other numbers with 6
// significant digits (1e6 and above as integers), booleans as yes and no, strings as they are.
std::string format_table(const Fields& fields);

}  // namespace trireme
