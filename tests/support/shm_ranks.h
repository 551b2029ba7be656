// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Ranks that use a shm engine directly, below Group.
#pragma once

#include <functional>
#include <memory>
#include <numeric>
#include <utility>

#include "tests/support/ranks.h"
#include "tests/support/reference_tree.h"
#include "trireme/comm/engine.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme::testing {

class ShmRank {
 public:
  explicit ShmRank(const WorldOptions& options) {
    auto world = std::make_shared<WorldState>();
    world->rank = options.rank;
    Meeting meeting = meet(options, FileDescriptor(options.rank == 0 ? options.listen_fd : -1));
    world->members = meeting.members;
    world->control = std::make_unique<ControlPlane>(options.rank, std::move(meeting), world->latch);
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

 private:
  GroupScope scope_;
  std::unique_ptr<Engine> engine_;
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
