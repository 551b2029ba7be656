// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The two compressed lists in which Slurm describes a job step.
//
//   first_slurm_host("node[003-005,7],login1");   // "node003"
//   slurm_task_counts("2(x3),1");                 // {2, 2, 2, 1}
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// First host of a list such as SLURM_STEP_NODELIST. Brackets hold numbers and ranges whose leading
// zeros count; a name may have several ("rack[1-2]node[01-16]"). Throws ConfigError that names the
// variable: an empty list, brackets that do not match, ranges that are not ascending numbers.
std::string first_slurm_host(std::string_view list, std::string_view variable);

// Tasks of each node of the step, in the order of the node list. Throws ConfigError that names the
// variable: not a list of counts, counts below 1, more than a million nodes.
std::vector<int> slurm_task_counts(std::string_view list, std::string_view variable);

}  // namespace trireme
