// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/nccl/watch.h"

#include <algorithm>
#include <utility>

namespace trireme {
Watch::Watch(const GroupScope& scope, const OperationName& what, const Deadline& deadline,
             std::vector<int> peers)
    : scope_(scope),
      what_(what),
      deadline_(deadline),
      peers_(std::move(peers)),
      posted_(scope, what, peers_.front()) {}

void Watch::look() {
  scope_.world->latch.throw_if_failed();
  if (deadline_.expired()) timeout_error(scope_, what_, peers_);
  const bool all_left =
      std::all_of(peers_.begin(), peers_.end(), [&](int peer) { return scope_.has_left(peer); });
  if (all_left && !last_words_) last_words_ = Deadline::after(kLastWordsTime);
  if (last_words_ && last_words_->expired()) left_error(scope_, what_, peers_.front());
}

}  // namespace trireme
