// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Ranks that use a shm engine directly, below Group.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"
#include "trireme/comm/engine.h"
#include "trireme/comm/meeting/rendezvous.h"
#include "trireme/comm/shm/shm_regions.h"

namespace trireme::testing {

class ShmRank {
 public:
  explicit ShmRank(const WorldOptions& options) {
    auto world = std::make_shared<WorldState>();
    world->rank = options.rank;
    Meeting meeting = meet(options, FileDescriptor(options.rank == 0 ? options.listen_fd : -1));
    world->members = meeting.members;
    world->control = std::make_unique<ControlPlane>(options.rank, std::move(meeting), world->latch,
                                                    world->waits);
    world->regions = std::make_shared<ShmRegions>();
    scope_.world = world;
    scope_.name = "shm";
    scope_.rank = options.rank;
    scope_.world_ranks.resize(static_cast<std::size_t>(options.size));
    std::iota(scope_.world_ranks.begin(), scope_.world_ranks.end(), 0);
    engine_ = make_shm_engine(scope_);
  }
  ~ShmRank() {
    scope_.world->control->say_goodbye();
    if (scope_.rank == 0) scope_.world->control->wait_for_others_to_leave(deadline());
  }
  ShmRank(const ShmRank&) = delete;
  ShmRank& operator=(const ShmRank&) = delete;

  int rank() const { return scope_.rank; }
  static Deadline deadline() { return Deadline::after(kTestDeadline); }
  void run(Collective& collective) {
    collective.signature.sequence = ++sequence_;
    engine_->run(collective, deadline());
  }
  Engine& engine() { return *engine_; }

  // The same bytes where they are, or where the other ranks can reach them. All ranks call it, with
  // the same choice, before the operation that it is for.
  const std::byte* place(const Bytes& bytes, bool shared) {
    if (!shared) return bytes.data();
    auto memory = scope_.world->regions->allocate(scope_, bytes.size() + 1);
    std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(memory.get()));
    placed_.push_back(memory);
    // Operations look for shared memory when ranks had some at the one before.
    Collective barrier;
    run(barrier);
    return static_cast<const std::byte*>(memory.get());
  }

 private:
  GroupScope scope_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::shared_ptr<void>> placed_;
  std::uint64_t sequence_ = 0;
};

inline void run_shm_threads(int n, const std::function<void(ShmRank&)>& body) {
  const Listener listener = listen_on_free_port();
  const std::vector<WorldOptions> options = world_options(n, listener, "shm");
  run_rank_threads(n, [&](int rank) {
    ShmRank own(options[static_cast<std::size_t>(rank)]);
    body(own);
  });
}

}  // namespace trireme::testing
