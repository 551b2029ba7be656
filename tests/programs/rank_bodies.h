// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the ranks of a test program do with a group of theirs. Each compares what it gets with the
// scalar tree, and throws WrongResult; all ranks of the group call it.
#pragma once

#include <stdexcept>
#include <string>

#include "trireme/comm/group.h"

namespace trireme::testing {

class WrongResult : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline void expect(bool condition, const std::string& what) {
  if (!condition) throw WrongResult(what);
}

// All operations but messages, with many dtypes, reductions and counts.
void operations(Group& group);
// All messages of all ranks at once, received in another order than sent, with a reduction beside
// them; then a ring.
void messages(Group& group);
// Parts of the group, one per thread, all ranks in each; reductions of different sizes at once.
void groups(Group& group);
// What is sent last, and by ranks that leave at once, arrives.
void last_words(Group& group);

}  // namespace trireme::testing
