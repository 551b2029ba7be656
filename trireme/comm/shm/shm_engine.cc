// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Which algorithm a collective takes; the algorithms are in shm_operation.h, messages in
// shm_messages.h.

#include <atomic>
#include <memory>

#include "trireme/comm/engine.h"
#include "trireme/comm/shm/shm_messages.h"
#include "trireme/comm/shm/shm_operation.h"
#include "trireme/comm/shm/shm_segment.h"

namespace trireme {
namespace {

class ShmEngine final : public Engine {
 public:
  explicit ShmEngine(const GroupScope& scope) : scope_(scope), messages_(scope) {}

  std::string_view name() const override { return "shm"; }
  std::int64_t bytes_sent() const override { return bytes_sent_.load(std::memory_order_relaxed); }
  std::int64_t bytes_sent_between_hosts() const override { return 0; }

  void run(const Collective& collective, const Deadline& deadline) override {
    if (!segment_) {
      segment_ = std::make_unique<ShmSegment>(scope_, collective.identity(), deadline);
    }
    ShmOperation operation(scope_, *segment_, collective, deadline, may_be_direct_);
    run(operation);
    may_be_direct_ = operation.any_has_regions();
    count_sent(operation.bytes_sent());
  }

  void send(const MessageKey& key, const ConstBuffer& data, const Deadline& deadline) override {
    messages_.send(key, data, deadline);
    count_sent(static_cast<std::int64_t>(data.bytes()));
  }
  void receive(const MessageKey& key, const Buffer& data, const Deadline& deadline) override {
    messages_.receive(key, data, deadline);
  }
  void exchange(const MessageKey& out_key, const ConstBuffer& out, const MessageKey& in_key,
                const Buffer& in, const Deadline& deadline) override {
    messages_.exchange(out_key, out, in_key, in, deadline);
    count_sent(static_cast<std::int64_t>(out.bytes()));
  }

 private:
  static void run(ShmOperation& operation) {
    switch (operation.signature().kind) {
      case CollectiveKind::kBarrier:
        return operation.meet();
      case CollectiveKind::kAllReduce:
      case CollectiveKind::kReduce:
        return shm_reduce(operation);
      case CollectiveKind::kReduceScatter:
        return shm_reduce_scatter(operation);
      case CollectiveKind::kBroadcast:
      case CollectiveKind::kAllGather:
      case CollectiveKind::kGather:
      case CollectiveKind::kScatter:
      case CollectiveKind::kAllToAll:
        return shm_move(operation);
    }
  }
  void count_sent(std::int64_t bytes) { bytes_sent_.fetch_add(bytes, std::memory_order_relaxed); }

  const GroupScope& scope_;
  std::unique_ptr<ShmSegment> segment_;  // made by the first collective
  // Whether any rank had regions when the last operation began. As all ranks saw the same then, all
  // agree on what they do in the next; and where there are none, nobody spends a barrier on them.
  bool may_be_direct_ = false;
  ShmMessages messages_;
  std::atomic<std::int64_t> bytes_sent_ = 0;
};

}  // namespace

void ShmOperation::meet() {
  const Signature& mine = collective_.identity();
  if (!compared_) {
    segment_.own().opening = {mine, !scope_.world->regions->empty(), location_};
  }
  segment_.barrier(mine, deadline_);
  if (compared_) return;
  for (int rank = 0; rank < size(); ++rank) {
    const ShmHalf::Opening& theirs = segment_.published(rank).opening;
    if (theirs.signature != mine) mismatch_error(scope_, mine, rank, theirs.signature);
    any_has_regions_ |= theirs.has_regions;
  }
  compared_ = true;
}

bool ShmOperation::meet_and_tell(const void* data, std::size_t bytes) {
  location_ = scope_.world->regions->locate(data, bytes);
  meet();
  for (int rank = 0; rank < size(); ++rank) {
    const ShmLocation& location = segment_.published(rank).opening.location;
    if (location.place == ShmLocation::Place::kPrivate) return false;
  }
  return true;
}

void ShmOperation::reach(const void* own) {
  data_.resize(static_cast<std::size_t>(size()));
  for (int rank = 0; rank < size(); ++rank) {
    std::shared_ptr<std::byte>& memory = data_[static_cast<std::size_t>(rank)];
    const ShmLocation& location = segment_.published(rank).opening.location;
    if (rank == this->rank()) {
      memory = {std::shared_ptr<std::byte>(), static_cast<std::byte*>(const_cast<void*>(own))};
    } else if (location.place == ShmLocation::Place::kRegion) {
      memory = scope_.world->regions->reach(scope_, rank, location);
    }
  }
}

std::unique_ptr<Engine> make_shm_engine(const GroupScope& scope) {
  return std::make_unique<ShmEngine>(scope);
}

}  // namespace trireme
