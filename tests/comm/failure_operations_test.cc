// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A rank is killed, or stopped, in the middle of each operation that Group has.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/ranks.h"
#include "trireme/comm/group.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using testing::RankProcess;
using testing::start_processes;
using ::testing::StartsWith;

constexpr int kRanks = 3;
constexpr int kVictim = 1;
// More than one segment of any engine's; no multiple of anything.
constexpr std::int64_t kBlock = 200003;

// Room for every operation: a block for each rank on either side.
struct Memory {
  std::vector<float> in = std::vector<float>(kRanks * kBlock, 1.0F);
  std::vector<float> out = std::vector<float>(kRanks * kBlock);

  Buffer blocks_in() { return buffer_of(std::span(in)); }
  Buffer blocks_out() { return buffer_of(std::span(out)); }
  Buffer block_in() { return buffer_of(std::span(in).first(kBlock)); }
  Buffer block_out() { return buffer_of(std::span(out).first(kBlock)); }
};

struct Operation {
  const char* test_name;
  const char* name;  // in messages, as a regular expression
  std::function<void(Group&, Memory&)> call;
};

// Every rank but the victim exchanges with the victim only, so that nobody else is waited for.
void with_victim(Group& group, const std::function<void(int peer)>& exchange) {
  if (group.rank() != kVictim) return exchange(kVictim);
  for (int peer = 0; peer < kRanks; ++peer) {
    if (peer != kVictim) exchange(peer);
  }
}

const std::vector<std::int64_t>& uneven() {
  static const std::vector<std::int64_t> counts{kBlock - 1, 2, kBlock + 70001};
  return counts;
}

// all_to_all of counts that differ for every pair: i sends j what is at (i, j).
std::vector<std::int64_t> pair_counts(int rank, bool sends) {
  std::vector<std::int64_t> counts;
  for (int peer = 0; peer < kRanks; ++peer) {
    const int from = sends ? rank : peer;
    const int to = sends ? peer : rank;
    counts.push_back(1 + 50021 * from + 10007 * to);
  }
  return counts;
}

std::int64_t sum_of(const std::vector<std::int64_t>& counts) {
  std::int64_t sum = 0;
  for (const std::int64_t count : counts) sum += count;
  return sum;
}

std::vector<Operation> operations() {
  std::vector<Operation> all{
      {"barrier", "barrier", [](Group& group, Memory&) { group.barrier(); }},
      {"all_reduce", "all_reduce",
       [](Group& group, Memory& memory) { group.all_reduce(memory.blocks_in(), ReduceOp::kMax); }},
      {"start_all_reduce", "all_reduce",
       [](Group& group, Memory& memory) {
         Work first = group.start_all_reduce(memory.blocks_in(), ReduceOp::kMax);
         Work second = group.start_all_reduce(memory.blocks_out(), ReduceOp::kMax);
         first.wait();
         second.wait();
       }},
      {"all_reduce_of_several", "all_reduce",
       [](Group& group, Memory& memory) {
         const std::vector<Buffer> parts{memory.block_in(), memory.block_out()};
         group.all_reduce(parts, ReduceOp::kMax);
       }},
      {"reduce_scatter", "reduce_scatter",
       [](Group& group, Memory& memory) {
         group.reduce_scatter(memory.blocks_in(), memory.block_out());
       }},
      {"reduce_scatter_uneven", "reduce_scatter",
       [](Group& group, Memory& memory) {
         const auto own =
             static_cast<std::size_t>(uneven()[static_cast<std::size_t>(group.rank())]);
         group.reduce_scatter(
             buffer_of(std::span(memory.in).first(static_cast<std::size_t>(sum_of(uneven())))),
             buffer_of(std::span(memory.out).first(own)), ReduceOp::kSum, uneven());
       }},
      {"all_gather", "all_gather",
       [](Group& group, Memory& memory) {
         group.all_gather(memory.block_in(), memory.blocks_out());
       }},
      {"all_to_all", "all_to_all",
       [](Group& group, Memory& memory) {
         group.all_to_all(memory.blocks_in(), memory.blocks_out());
       }},
      {"all_to_all_uneven", "all_to_all",
       [](Group& group, Memory& memory) {
         const auto sent = pair_counts(group.rank(), true);
         const auto received = pair_counts(group.rank(), false);
         const auto part = [](std::vector<float>& data, const std::vector<std::int64_t>& counts) {
           return buffer_of(std::span(data).first(static_cast<std::size_t>(sum_of(counts))));
         };
         group.all_to_all(part(memory.in, sent), part(memory.out, received), sent, received);
       }},
      {"send_and_recv", "(send|recv)",
       [](Group& group, Memory& memory) {
         with_victim(group, [&](int peer) {
           if (group.rank() == kVictim) {
             group.recv(memory.block_out(), peer, 3);
             group.send(memory.block_out(), peer, 3);
           } else {
             group.send(memory.block_in(), peer, 3);
             group.recv(memory.block_in(), peer, 3);
           }
         });
       }},
      {"start_send_and_recv", "(send|recv)",
       [](Group& group, Memory& memory) {
         with_victim(group, [&](int peer) {
           Work in = group.start_recv(memory.block_out(), peer, 5);
           Work out = group.start_send(memory.block_in(), peer, 5);
           in.wait();
           out.wait();
         });
       }},
      {"send_recv", "(send|recv)", [](Group& group, Memory& memory) {
         with_victim(group, [&](int peer) {
           group.send_recv(memory.block_in(), peer, memory.block_out(), peer);
         });
       }}};
  for (const int root : {0, kVictim}) {
    const char* names[] = {root == 0 ? "broadcast_to_it" : "broadcast_from_it",
                           root == 0 ? "reduce_from_it" : "reduce_to_it",
                           root == 0 ? "gather_from_it" : "gather_to_it",
                           root == 0 ? "scatter_to_it" : "scatter_from_it"};
    all.push_back({names[0], "broadcast", [root](Group& group, Memory& memory) {
                     group.broadcast(memory.blocks_in(), root);
                   }});
    all.push_back({names[1], "reduce", [root](Group& group, Memory& memory) {
                     group.reduce(memory.blocks_in(), root, ReduceOp::kMax);
                   }});
    all.push_back({names[2], "gather", [root](Group& group, Memory& memory) {
                     group.gather(memory.block_in(), memory.blocks_out(), root);
                   }});
    all.push_back({names[3], "scatter", [root](Group& group, Memory& memory) {
                     group.scatter(memory.blocks_in(), memory.block_out(), root);
                   }});
  }
  return all;
}

class OperationTest : public ::testing::TestWithParam<std::tuple<std::string, Operation>> {
 protected:
  const Operation& operation() const { return std::get<1>(GetParam()); }

  // Ranks that repeat the operation until something ends it; all have done it some times.
  std::vector<RankProcess> start(std::chrono::milliseconds timeout) {
    const auto forever = [this, timeout](const WorldOptions& options) -> std::string {
      const auto group = join_world(options);
      Memory memory;
      for (int i = 0;; ++i) {
        if (i == 3) {
          group->set_timeout(timeout);
          RankProcess::say("running");
        }
        operation().call(*group, memory);
      }
    };
    auto ranks = start_processes(kRanks, forever, std::get<0>(GetParam()));
    for (RankProcess& rank : ranks) {
      EXPECT_TRUE(rank.wait_to_hear("running")) << rank.result(Deadline::after({}));
    }
    return ranks;
  }
};

// The contract's five seconds.
TEST_P(OperationTest, EndsWithinFiveSecondsWhenARankIsKilled) {
  auto ranks = start(testing::kTestDeadline);
  const Deadline deadline = Deadline::after(testing::kLossTime);
  ranks[kVictim].signal(SIGKILL);
  for (const int rank : {0, 2}) {
    EXPECT_THAT(ranks[static_cast<std::size_t>(rank)].result(deadline),
                AllOf(StartsWith("PeerLostError 1: "), HasSubstr("rank 1 on ")));
  }
}

TEST_P(OperationTest, EndsAtItsDeadlineWhenARankIsStopped) {
  auto ranks = start(std::chrono::milliseconds(1500));
  ranks[kVictim].signal(SIGSTOP);
  // A rank that the stopped one keeps in the operation before has not arrived either.
  const std::string name =
      std::string(
          "^TimeoutError: group world: ranks? ([02], )?1(, [02])?( on [^,]*)? did not "
          "arrive at (operation|message) [0-9]+, ") +
      operation().name + "\\(";
  for (const int rank : {0, 2}) {
    EXPECT_THAT(ranks[static_cast<std::size_t>(rank)].result(), ContainsRegex(name));
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, OperationTest,
                         ::testing::Combine(::testing::Values("shm", "gloo"),
                                            ::testing::ValuesIn(operations())),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param).test_name;
                         });

}  // namespace
}  // namespace trireme
