// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// An operation in two halves that do not wait for one another: the peer of one half may wait, by
// way of others, for what the other half brings.
#pragma once

#include <functional>

#include "trireme/comm/world_state.h"

namespace trireme {

// Runs both at once, one on a thread of its own, and returns when both are done. A half that throws
// ends the world, so that the other one hears of it; throws the first cause.
void run_two_halves(const WorldState& world, const std::function<void()>& one,
                    const std::function<void()>& other);

}  // namespace trireme
