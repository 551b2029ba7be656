// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The schedule dualpipev: a fixed pattern of phases. In the long middle one a forward of one chunk
// and a whole backward of the other stand side by side, so that who runs them may do both at once
// and hide the exchange of the one behind the computing of the other.
#pragma once

#include <vector>

#include "trireme/plan/schedule.h"

namespace trireme::plan {

// What each rank does; rank r has stages r and 2*ranks-1-r.
std::vector<std::vector<Instruction>> dual_pipe_v(int ranks, int micro_batches);

}  // namespace trireme::plan
