// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/shm/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "trireme/base/error.h"
#include "trireme/comm/shm/futex.h"

namespace trireme {
namespace {

// A sleeper looks at least this often whether the world still stands. Waking it is the rule, this
// the net below.
constexpr std::chrono::milliseconds kSlice{100};
// Before sleeping, where every rank has a core of its own: about what going to sleep and being
// woken costs. Two ranks, 64 MiB all_reduce, busy machine: 28 ms with 2 us, 18 ms with 20 us, 16 ms
// with 60 us; but 60 us made 4 to 1024 KiB slower in one run of two.
constexpr std::chrono::microseconds kSpin{20};

std::string error_text() { return std::strerror(errno); }

std::string segment_key(const GroupScope& scope) { return fmt::format("shm/{:016x}", scope.id); }

bool every_rank_has_a_core(const GroupScope& scope) {
  const auto& members = scope.world->members;
  const std::string& host = members[static_cast<std::size_t>(scope.world->rank)].host_id;
  const auto here = std::count_if(members.begin(), members.end(),
                                  [&](const Member& member) { return member.host_id == host; });
  return static_cast<unsigned>(here) <= std::thread::hardware_concurrency();
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct ShmSegment::RankPart {
  // Number of the last barrier that the rank has arrived at.
  alignas(64) std::atomic<std::uint32_t> arrived;
  // Ranks that sleep on arrived. One that is killed while it sleeps stays counted, which only costs
  // needless wakes.
  std::atomic<std::uint32_t> sleepers;
  // The group's id, once by the creator: proof that the right memory was opened.
  std::atomic<std::uint64_t> group;
  alignas(64) ShmHalf halves[2];
};

ShmSegment::ShmSegment(const GroupScope& scope, const Deadline& deadline)
    : scope_(scope),
      bytes_(sizeof(RankPart) * static_cast<std::size_t>(scope.size())),
      spin_(every_rank_has_a_core(scope)) {
  ControlPlane& control = *scope.world->control;
  const int creator = scope.world_ranks[0];
  if (scope.rank == 0) {
    create();
    control.put(segment_key(scope), fmt::format("/proc/{}/fd/{}", getpid(), fd_.get()));
  } else {
    const std::string what =
        fmt::format("the shared memory of group {}, which rank {} makes", scope.name, creator);
    open(control.get(segment_key(scope), deadline, what), creator);
  }
  subscription_ = scope.world->latch.subscribe([this] { wake_sleepers(); });
}

ShmSegment::~ShmSegment() { scope_.world->latch.unsubscribe(subscription_); }

void ShmSegment::Unmap::operator()(RankPart* parts) const { munmap(parts, bytes); }

void ShmSegment::create() {
  fd_ = FileDescriptor(memfd_create("trireme", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const bool sized = fd_ && ftruncate(fd_.get(), static_cast<off_t>(bytes_)) == 0 &&
                     fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes_)) == 0 &&
                     fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0;
  if (!sized) {
    throw_error<CommError>(
        "rank {} cannot reserve {} MiB of shared memory for group {}: {}; free memory, or use the "
        "gloo engine",
        scope_.world->rank, bytes_ >> 20, scope_.name, error_text());
  }
  map(fd_.get());
  parts_[0].group.store(scope_.id);
}

void ShmSegment::open(const std::string& where, int creator) {
  const FileDescriptor fd(::open(where.c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) {
    throw_error<CommError>(
        "rank {} cannot open the shared memory of rank {} ({}): {}; do both run as the same user, "
        "or use the gloo engine",
        scope_.world->rank, creator, where, error_text());
  }
  struct stat status {};
  if (fstat(fd.get(), &status) == 0 && static_cast<std::size_t>(status.st_size) == bytes_) {
    map(fd.get());
  }
  if (parts_ == nullptr || parts_[0].group.load() != scope_.id) {
    throw_error<CommError>("what rank {} finds at {} is not the shared memory of group {}",
                           scope_.world->rank, where, scope_.name);
  }
}

void ShmSegment::map(int fd) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    throw_error<CommError>("rank {} cannot map {} MiB of shared memory for group {}: {}",
                           scope_.world->rank, bytes_ >> 20, scope_.name, error_text());
  }
  parts_ = std::unique_ptr<RankPart[], Unmap>(static_cast<RankPart*>(memory), Unmap{bytes_});
}

ShmHalf& ShmSegment::half(int rank, std::uint32_t barrier) const {
  return parts_[rank].halves[barrier & 1];
}

bool ShmSegment::arrived(int rank) const {
  // Numbers wrap around; ranks are never more than two barriers apart.
  const std::uint32_t behind = next_barrier_ - parts_[rank].arrived.load(std::memory_order_seq_cst);
  return static_cast<std::int32_t>(behind) <= 0;
}

void ShmSegment::barrier(const Signature& signature, const Deadline& deadline) {
  RankPart& own_part = parts_[scope_.rank];
  // Sequentially consistent, as is the sleepers' counting: either we see the sleeper, or it sees
  // us.
  own_part.arrived.store(next_barrier_, std::memory_order_seq_cst);
  if (own_part.sleepers.load(std::memory_order_seq_cst) != 0) futex_wake_all(own_part.arrived);
  for (int i = 1; i < scope_.size(); ++i) {
    wait_for((scope_.rank + i) % scope_.size(), signature, deadline);
  }
  ++next_barrier_;
  fd_ = FileDescriptor();
}

void ShmSegment::wait_for(int rank, const Signature& signature, const Deadline& deadline) {
  if (arrived(rank)) return;
  if (spin_) {
    const auto until = Deadline::Clock::now() + kSpin;
    do {
      for (int i = 0; i < 16; ++i) pause();
      if (arrived(rank)) return;
    } while (Deadline::Clock::now() < until);
  }
  RankPart& part = parts_[rank];
  for (;;) {
    const bool left = scope_.has_left(rank);
    part.sleepers.fetch_add(1, std::memory_order_seq_cst);
    const std::uint32_t seen = part.arrived.load(std::memory_order_seq_cst);
    const bool there = static_cast<std::int32_t>(next_barrier_ - seen) <= 0;
    if (!there && !left && !scope_.world->latch.failed()) {
      futex_wait(part.arrived, seen, std::min(kSlice, deadline.remaining()));
    }
    part.sleepers.fetch_sub(1, std::memory_order_seq_cst);
    if (arrived(rank)) return;
    scope_.world->latch.throw_if_failed();
    // It arrives before it says goodbye.
    if (left) left_error(scope_, OperationName(signature), rank);
    if (deadline.expired()) {
      const std::vector<int> late = missing();
      if (!late.empty()) timeout_error(scope_, OperationName(signature), late);
    }
  }
}

std::vector<int> ShmSegment::missing() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < scope_.size(); ++rank) {
    if (!arrived(rank)) ranks.push_back(rank);
  }
  return ranks;
}

void ShmSegment::wake_sleepers() const {
  for (int rank = 0; rank < scope_.size(); ++rank) futex_wake_all(parts_[rank].arrived);
}

}  // namespace trireme
