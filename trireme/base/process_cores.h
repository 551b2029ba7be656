// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where this process may run, which a thread that is pinned no longer tells.
#pragma once

#include <sched.h>

#include <cstddef>
#include <vector>

namespace trireme {

// A set of any number of cores: several cpu_set_t in a row, as the kernel and the CPU_*_S macros
// take them.
class CoreMask {
 public:
  CoreMask() = default;
  explicit CoreMask(const std::vector<int>& cores);
  // Of the calling thread.
  static CoreMask of_this_thread();

  std::vector<int> cores() const;  // ascending
  const cpu_set_t* data() const { return sets_.data(); }
  std::size_t bytes() const { return sets_.size() * sizeof(cpu_set_t); }

 private:
  std::vector<cpu_set_t> sets_ = std::vector<cpu_set_t>(1);
};

// The cores that the calling thread could run on when this was called for the first time, which
// whoever pins threads does before. Ascending, not empty. Any thread.
const std::vector<int>& process_cores();

}  // namespace trireme
