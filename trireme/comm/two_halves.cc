// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/two_halves.h"

#include <exception>
#include <thread>

namespace trireme {
namespace {

std::exception_ptr outcome_of(const WorldState& world, const std::function<void()>& half) {
  try {
    half();
  } catch (const std::exception& error) {
    world.control->announce(Failure::of(error));
    return std::current_exception();
  }
  return nullptr;
}

}  // namespace

void run_two_halves(const WorldState& world, const std::function<void()>& one,
                    const std::function<void()>& other) {
  std::exception_ptr failed;
  std::thread thread([&] { failed = outcome_of(world, one); });
  const std::exception_ptr other_failed = outcome_of(world, other);
  thread.join();
  if (!failed && !other_failed) return;
  world.latch.throw_if_failed();
  std::rethrow_exception(failed ? failed : other_failed);
}

}  // namespace trireme
