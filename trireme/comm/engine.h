// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What carries the bytes of one group. An engine runs one collective at a time, on whatever thread
// calls it; order, latching and asynchrony are the group's (group_impl.h).
//
// Contract of run():
// - All ranks' signatures are compared before any rank's result is given out; a difference is a
//   CommError with both sides on every rank that sees it (mismatch_error).
// - Reductions go through reduce_tree(), inputs in rank order: the bits do not depend on the
// engine.
// - It returns or throws by the deadline: TimeoutError naming the ranks that have not arrived; the
//   latched failure of the world, soon after it falls; CommError when a rank that it waits for has
//   left.
// - After a throw the engine is only destroyed.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "trireme/base/deadline.h"
#include "trireme/comm/collective.h"
#include "trireme/comm/world_state.h"

namespace trireme {

class Engine {
 public:
  virtual ~Engine() = default;

  virtual std::string_view name() const = 0;
  virtual void run(const Collective& collective, const Deadline& deadline) = 0;
  // Payload that this rank has given to other ranks, counted once per receiver. Any thread.
  virtual std::int64_t bytes_sent() const = 0;
};

// scope must outlive the engine.
std::unique_ptr<Engine> make_self_engine();
std::unique_ptr<Engine> make_shm_engine(const GroupScope& scope);
std::unique_ptr<Engine> make_gloo_engine(const GroupScope& scope);

}  // namespace trireme
