// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What whoever waits for a device looks at meanwhile: NCCL and CUDA know no deadline, and do not
// hear of a rank that is lost.
#pragma once

#include <optional>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/wait_board.h"
#include "trireme/comm/world_state.h"

namespace trireme {

// One wait of one thread, posted on the world's WaitBoard as long as this exists.
class Watch {
 public:
  // peers are ranks of the group, at least one: whom the wait is for. Everything must outlive it.
  Watch(const GroupScope& scope, const OperationName& what, const Deadline& deadline,
        std::vector<int> peers);

  const Deadline& deadline() const { return deadline_; }
  // Throws when the wait must end: what Engine::run() throws. Payload is waited for when both ends
  // have called the operation and compared, so a peer that has left meanwhile has done its part;
  // only when all have left, and nothing comes, is something wrong.
  void look();

 private:
  const GroupScope& scope_;
  const OperationName& what_;
  const Deadline& deadline_;
  const std::vector<int> peers_;
  const WaitBoard::Posted posted_;
  std::optional<Deadline> last_words_;  // since all have left
};

}  // namespace trireme
