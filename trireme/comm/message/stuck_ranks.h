// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Who keeps an operation from ending, when its deadline has passed.
//
// Who waits for a third rank is silent, too. A rank that times out says on the control plane whom
// it misses: it is alive and in the operation, and whoever it misses is asked in its turn. Those
// who say nothing are stuck. When we do not even hear ourselves, rank 0, through whom it goes, is.
#pragma once

#include <vector>

#include "trireme/comm/world_state.h"

namespace trireme {

// silent: ranks of the group of which this one has not got what it waits for. Takes at most twice
// the time that ranks have to say so. Throws the latched failure.
std::vector<int> stuck_ranks(const GroupScope& scope, const std::vector<int>& silent,
                             const OperationName& what);

}  // namespace trireme
