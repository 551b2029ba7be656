// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// All that can happen in small systems, one state after the other (protocol_model.h): no state is
// wrong, and from each one the job can still end well, or its failure is known.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/ps/protocol_model.h"

namespace trireme::ps {
namespace {

struct HashOfHash {
  std::size_t operator()(const Hash& hash) const { return hash.low; }
};

struct Exploration {
  std::size_t states = 0;
  std::size_t done = 0;
  std::size_t failed = 0;
  std::string fault;  // what is wrong, with the way to it
};

class Explorer {
 public:
  explicit Explorer(const ModelOptions& options) : options_(options) {}

  // Breadth first, so that the way to a fault is a shortest one.
  Exploration run(std::size_t most_states) {
    Exploration result;
    std::deque<std::pair<std::uint32_t, System>> open;
    const System start(options_);
    ids_[start.fingerprint()] = 0;
    came_from_.push_back({0, 0});
    open.emplace_back(0, start);
    while (!open.empty()) {
      const auto [id, system] = std::move(open.front());
      open.pop_front();
      if (system.done() || system.failed()) {
        ends_.push_back(id);
        (system.failed() ? result.failed : result.done) += 1;
      }
      std::uint32_t number = 0;
      for (System::Move& move : system.moves(false)) {
        const auto [found, is_new] =
            ids_.try_emplace(move.next.fingerprint(), static_cast<std::uint32_t>(ids_.size()));
        edges_.emplace_back(found->second, id);
        if (is_new) {
          came_from_.push_back({id, number});
          if (!move.next.fault().empty()) {
            result.fault = move.next.fault() + way_to(found->second);
            return result;
          }
          open.emplace_back(found->second, std::move(move.next));
        }
        ++number;
      }
      if (ids_.size() > most_states) {
        result.fault = fmt::format("more than {} states", most_states);
        return result;
      }
    }
    result.states = ids_.size();
    result.fault = stuck();
    return result;
  }

 private:
  // A state from which no end can be reached, with the way to it; empty: there is none.
  std::string stuck() const {
    std::vector<std::vector<std::uint32_t>> before(ids_.size());
    for (const auto& [to, from] : edges_) before[to].push_back(from);
    std::vector<bool> ends(ids_.size());
    std::vector<std::uint32_t> open = ends_;
    for (const std::uint32_t id : open) ends[id] = true;
    while (!open.empty()) {
      const std::uint32_t id = open.back();
      open.pop_back();
      for (const std::uint32_t from : before[id]) {
        if (ends[from]) continue;
        ends[from] = true;
        open.push_back(from);
      }
    }
    for (std::uint32_t id = 0; id < ends.size(); ++id) {
      if (!ends[id]) return "no end can be reached" + way_to(id);
    }
    return {};
  }

  std::string way_to(std::uint32_t id) const {
    std::vector<std::uint32_t> numbers;
    for (; id != 0; id = came_from_[id].first) numbers.push_back(came_from_[id].second);
    System system(options_);
    std::string text = "\n";
    for (auto number = numbers.rbegin(); number != numbers.rend(); ++number) {
      System::Move move = std::move(system.moves(true)[*number]);
      text += move.what + "\n";
      system = std::move(move.next);
    }
    return text + system.text();
  }

  ModelOptions options_;
  std::unordered_map<Hash, std::uint32_t, HashOfHash> ids_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> came_from_;  // state, number of its move
  std::vector<std::pair<std::uint32_t, std::uint32_t>> edges_;      // to, from
  std::vector<std::uint32_t> ends_;
};

constexpr std::size_t kMostStates = 1'000'000;

void explore(const ModelOptions& options, bool may_fail = false) {
  const Exploration result = Explorer(options).run(kMostStates);
  EXPECT_EQ(result.fault, "");
  EXPECT_GT(result.done, 0U);
  if (!may_fail) {
    EXPECT_EQ(result.failed, 0U);
  }
  fmt::print("{} states, {} ends, {} failures that are known\n", result.states, result.done,
             result.failed);
}

TEST(Protocol, SyncWithoutLosses) { explore({.servers = 2, .workers = 2, .steps = 2}); }

TEST(Protocol, SyncSurvivesTheLossOfAServer) {
  explore({.servers = 2, .workers = 2, .steps = 2, .server_crashes = 1});
}

TEST(Protocol, PushPullSurvivesTheLossOfAServer) {
  explore({.servers = 2, .workers = 2, .steps = 2, .push_pull = true, .server_crashes = 1});
}

TEST(Protocol, TwoPhasesSurviveTheLossOfAServer) {
  explore({.servers = 2, .workers = 2, .steps = 2, .two_phases = true, .server_crashes = 1});
}

TEST(Protocol, AsyncSurvivesTheLossOfAServer) {
  explore({.servers = 2,
           .workers = 2,
           .steps = 2,
           .consistency = Consistency::async(),
           .server_crashes = 1});
}

TEST(Protocol, BoundedSurvivesTheLossOfAServer) {
  explore({.servers = 2,
           .workers = 2,
           .steps = 3,
           .consistency = Consistency::bounded(1),
           .server_crashes = 1});
}

TEST(Protocol, LateRequests) {
  explore({.servers = 2, .workers = 2, .steps = 2, .late_steps = 1, .server_crashes = 1});
}

TEST(Protocol, LateRequestsWhereWorkersAreApart) {
  explore({.servers = 1,
           .workers = 2,
           .steps = 2,
           .consistency = Consistency::bounded(1),
           .late_steps = 1});
  explore({.servers = 2,
           .workers = 1,
           .steps = 3,
           .consistency = Consistency::bounded(1),
           .late_steps = 1,
           .server_crashes = 1});
}

TEST(Protocol, AThirdServerBecomesBackup) {
  explore({.servers = 3, .workers = 2, .steps = 2, .server_crashes = 1});
}

TEST(Protocol, TwoServersAreLostOneAfterTheOther) {
  explore({.servers = 3, .workers = 1, .steps = 2, .server_crashes = 2}, true);
}

TEST(Protocol, AServerThatReturnsTakesItsShareAgain) {
  explore({.servers = 2, .workers = 1, .steps = 2, .server_crashes = 1, .server_returns = 1});
}

TEST(Protocol, ARangeMovesForBalance) {
  explore({.servers = 3, .workers = 1, .steps = 2, .moves = 1});
  explore({.servers = 2, .workers = 2, .steps = 2, .handovers = 1});
}

// Some views are not seen by those who are in the views before and after.
TEST(Protocol, ARangeMovesTwice) {
  explore({.servers = 3, .workers = 1, .steps = 1, .moves = 2});
  explore({.servers = 2, .workers = 1, .steps = 2, .handovers = 2});
}

TEST(Protocol, AnyServerIsLostWhileABackupIsReplaced) {
  explore({.servers = 3, .workers = 1, .steps = 2, .server_crashes = 1, .moves = 1});
}

TEST(Protocol, AnyServerIsLostInAHandover) {
  explore({.servers = 2, .workers = 2, .steps = 1, .server_crashes = 1, .handovers = 1});
}

TEST(Protocol, ManyChangesBecomeOneView) {
  explore(
      {.servers = 3, .workers = 1, .steps = 1, .batches = true, .server_crashes = 1, .moves = 1});
  explore({.servers = 2,
           .workers = 1,
           .steps = 2,
           .batches = true,
           .server_crashes = 1,
           .server_returns = 1,
           .handovers = 1});
}

TEST(Protocol, AServerThatIsTakenForDead) {
  explore({.servers = 3, .workers = 2, .steps = 1, .suspicions = 1});
  explore({.servers = 2, .workers = 2, .steps = 2, .suspicions = 1});
}

TEST(Protocol, RequestsOfTermsThatAreOver) {
  explore({.servers = 1,
           .workers = 2,
           .steps = 1,
           .two_phases = true,
           .late_requests = true,
           .worker_crashes = 1});
  explore({.servers = 2,
           .workers = 2,
           .steps = 1,
           .two_phases = true,
           .late_requests = true,
           .server_crashes = 1});
}

TEST(Protocol, MessagesThatComeLate) {
  explore({.servers = 3, .workers = 1, .steps = 1, .late_messages = true, .server_crashes = 1});
  explore({.servers = 2,
           .workers = 1,
           .steps = 1,
           .late_messages = true,
           .server_crashes = 1,
           .server_returns = 1});
  explore({.servers = 3, .workers = 1, .steps = 2, .late_messages = true, .suspicions = 1});
}

TEST(Protocol, MessagesThatComeLateWhileARangeMoves) {
  explore({.servers = 2, .workers = 1, .steps = 2, .late_messages = true, .handovers = 2});
  explore({.servers = 3,
           .workers = 1,
           .steps = 1,
           .late_messages = true,
           .server_crashes = 1,
           .moves = 1});
  explore(
      {.servers = 3, .workers = 1, .steps = 1, .late_messages = true, .moves = 1, .handovers = 1});
}

TEST(Protocol, AWorkerDies) {
  explore({.servers = 2, .workers = 2, .steps = 2, .worker_crashes = 1});
}

TEST(Protocol, AWorkerDiesWhereTheSumIsAskedForFirst) {
  explore({.servers = 1, .workers = 2, .steps = 2, .two_phases = true, .worker_crashes = 1});
}

TEST(Protocol, AWorkerReturns) {
  explore({.servers = 1, .workers = 2, .steps = 2, .worker_crashes = 1, .worker_returns = 1});
}

TEST(Protocol, AWorkerReturnsWhereWorkersAreApart) {
  explore({.servers = 1,
           .workers = 2,
           .steps = 2,
           .consistency = Consistency::bounded(1),
           .worker_crashes = 1,
           .worker_returns = 1});
}

TEST(Protocol, AWorkerAndAServerDie) {
  explore({.servers = 2, .workers = 2, .steps = 1, .server_crashes = 1, .worker_crashes = 1});
}

}  // namespace
}  // namespace trireme::ps
