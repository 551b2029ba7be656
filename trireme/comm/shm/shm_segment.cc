// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_segment.h"

#include <fmt/format.h>

#include "trireme/base/error.h"
#include "trireme/comm/shm/shared_word.h"

namespace trireme {

struct ShmSegment::RankPart {
  // Number of the last barrier that the rank has arrived at.
  alignas(64) SharedWord arrived;
  alignas(64) ShmHalf halves[2];
};

ShmSegment::ShmSegment(const GroupScope& scope, const Signature& first, const Deadline& deadline)
    : scope_(scope), spin_(every_rank_has_a_core(scope)) {
  ControlPlane& control = *scope.world->control;
  const std::string key = fmt::format("shm/{:016x}", scope.id);
  const SharedMemory::Identity identity{scope.id, -1};
  const std::size_t bytes = sizeof(RankPart) * static_cast<std::size_t>(scope.size());
  if (scope.rank == 0) {
    memory_ = SharedMemory::make(scope, identity, bytes);
    memory_.reserve(scope, 0, bytes);
    control.put(key, memory_.where());
  } else {
    const std::string where = find_memory(scope, key, 0, OperationName(first), deadline);
    memory_ = SharedMemory::open(scope, identity, bytes, where, 0);
    memory_.close_descriptor();
  }
  subscription_ = scope.world->latch.subscribe([this] { wake_sleepers(); });
}

ShmSegment::~ShmSegment() { scope_.world->latch.unsubscribe(subscription_); }

ShmSegment::RankPart& ShmSegment::part(int rank) const {
  return reinterpret_cast<RankPart*>(memory_.data())[rank];
}

ShmHalf& ShmSegment::half(int rank, std::uint32_t barrier) const {
  return part(rank).halves[barrier & 1];
}

// Numbers wrap around; ranks are never more than two barriers apart.
bool ShmSegment::reached(std::uint32_t arrived) const {
  return static_cast<std::int32_t>(next_barrier_ - arrived) <= 0;
}

void ShmSegment::barrier(const Signature& signature, const Deadline& deadline) {
  part(scope_.rank).arrived.raise_to(next_barrier_);
  for (int i = 1; i < scope_.size(); ++i) {
    wait_for((scope_.rank + i) % scope_.size(), signature, deadline);
  }
  ++next_barrier_;
  memory_.close_descriptor();  // all have opened it
}

void ShmSegment::wait_for(int rank, const Signature& signature, const Deadline& deadline) {
  SharedWord& arrived = part(rank).arrived;
  const auto there = [&] { return reached(arrived.value()); };
  if (there() || (spin_ && spin_for(there))) return;
  const OperationName name(signature);
  const WaitBoard::Posted posted(scope_, name, rank);
  for (;;) {
    const bool left = scope_.has_left(rank);
    {
      SharedWord::Sleeper sleeper(arrived);
      if (!reached(sleeper.seen()) && !left && !scope_.world->latch.failed()) {
        sleeper.sleep(deadline);
      }
    }
    if (there()) return;
    scope_.world->latch.throw_if_failed();
    // It arrives before it says goodbye.
    if (left) left_error(scope_, name, rank);
    if (deadline.expired()) {
      const std::vector<int> late = missing();
      if (!late.empty()) timeout_error(scope_, name, late);
    }
  }
}

std::vector<int> ShmSegment::missing() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < scope_.size(); ++rank) {
    if (!reached(part(rank).arrived.value())) ranks.push_back(rank);
  }
  return ranks;
}

void ShmSegment::wake_sleepers() const {
  for (int rank = 0; rank < scope_.size(); ++rank) part(rank).arrived.wake_all();
}

}  // namespace trireme
