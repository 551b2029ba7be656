// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/process_cores.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "trireme/base/error.h"

namespace trireme {

CoreMask::CoreMask(const std::vector<int>& cores) {
  for (const int core : cores) {
    sets_.resize(std::max(sets_.size(), static_cast<std::size_t>(core) / CPU_SETSIZE + 1));
    CPU_SET_S(static_cast<std::size_t>(core), bytes(), sets_.data());
  }
}

// The kernel wants room for every core that it knows of, and says EINVAL until it has it.
CoreMask CoreMask::of_this_thread() {
  CoreMask mask;
  while (sched_getaffinity(0, mask.bytes(), mask.sets_.data()) != 0) {
    if (errno != EINVAL) throw_error<Error>("sched_getaffinity: {}", std::strerror(errno));
    mask.sets_.resize(mask.sets_.size() * 2);
  }
  return mask;
}

std::vector<int> CoreMask::cores() const {
  std::vector<int> result;
  for (std::size_t core = 0; core < sets_.size() * CPU_SETSIZE; ++core) {
    if (CPU_ISSET_S(core, bytes(), sets_.data())) result.push_back(static_cast<int>(core));
  }
  return result;
}

const std::vector<int>& process_cores() {
  static const std::vector<int> cores = CoreMask::of_this_thread().cores();
  return cores;
}

}  // namespace trireme
