// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A sharded model with a copy in each of two hosts, which are network namespaces: what the link
// between them carries.

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/network_namespaces.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "trireme/parallel/shard/shard_plan.h"

namespace trireme {
namespace {

using testing::NetworkNamespaces;
using testing::RankProcess;

constexpr int kRanks = 4, kHosts = 2;
constexpr int kRanksOfHost = kRanks / kHosts;

struct Outcome {
  std::int64_t elements = 0;                   // of the model
  std::int64_t across = 0;                     // bytes between copies, as all ranks count them
  std::array<std::int64_t, kHosts> left = {};  // bytes that left each host through its link
  std::string weights;
};

struct Layout {
  int ranks = 1;
  int stage = 0;
  int shard_ranks = 0;
  int steps = 1;
};

// On the hosts of net, or as one rank without any. LibTorch does not survive a fork: the child
// becomes a program of its own (programs/sharded_rank.cc).
Outcome run(const NetworkNamespaces& net, const Layout& layout) {
  const testing::TemporaryFolder folder;
  const std::string weights = (folder.path() / "weights").string();
  Outcome result;
  for (int host = 0; host < kHosts; ++host) {
    result.left[static_cast<std::size_t>(host)] = -net.bytes_sent(host);
  }
  std::vector<RankProcess> ranks;
  for (int rank = 0; rank < layout.ranks; ++rank) {
    ranks.emplace_back(rank, [&, rank]() -> std::string {
      if (layout.ranks > 1) net.enter(rank / kRanksOfHost);
      std::vector<std::string> text = {"sharded_rank",
                                       std::to_string(rank),
                                       std::to_string(layout.ranks),
                                       net.address(0),
                                       std::to_string(layout.stage),
                                       std::to_string(layout.shard_ranks),
                                       std::to_string(layout.steps),
                                       std::to_string(RankProcess::result_fd()),
                                       weights};
      std::vector<char*> argv;
      for (std::string& argument : text) argv.push_back(argument.data());
      argv.push_back(nullptr);
      ::dup2(::open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
      ::execv(TRIREME_SHARDED_RANK, argv.data());
      return "exec failed";
    });
  }
  for (RankProcess& rank : ranks) {
    const std::string said = rank.result();
    std::int64_t across = 0;
    std::istringstream numbers(said);
    EXPECT_TRUE(numbers >> across >> result.elements) << said;
    result.across += across;
  }
  for (int host = 0; host < kHosts; ++host) {
    result.left[static_cast<std::size_t>(host)] += net.bytes_sent(host);
  }
  result.weights = testing::read_text(weights);
  return result;
}

// With P parameters, S ranks to a copy and R copies a rank sends 2 (R - 1) / R x P / S gradients of
// 4 bytes to other copies in a step. What two runs of different lengths differ by is that of steps
// alone: the model itself crosses the link once at the start.
TEST(ShardedHosts, TheLinkBetweenHostsCarriesGradientsAlone) {
  const NetworkNamespaces net(kHosts);
  if (!net.unavailable().empty()) GTEST_SKIP() << net.unavailable();
  constexpr int kShort = 3, kLong = 9;
  constexpr std::int64_t kSteps = kLong - kShort;
  const Outcome alone = run(net, {.steps = kLong});
  for (const int stage : {1, 2, 3}) {
    // The ranks of a host by number, and as the ranks themselves know it.
    const int shard_ranks = stage == 2 ? kRanksOfHost : kHostRanks;
    const auto with = [&](int steps) {
      return run(net,
                 {.ranks = kRanks, .stage = stage, .shard_ranks = shard_ranks, .steps = steps});
    };
    const Outcome less = with(kShort), more = with(kLong);
    const std::string where = fmt::format("stage {}", stage);
    EXPECT_EQ(more.weights.size(), static_cast<std::size_t>(more.elements) * 4) << where;
    EXPECT_TRUE(more.weights == alone.weights) << where;
    const std::int64_t of_rank = 2 * (kHosts - 1) * (more.elements / kRanksOfHost) * 4 / kHosts;
    EXPECT_EQ(more.across, kLong * kRanks * of_rank) << where;
    for (std::size_t host = 0; host < kHosts; ++host) {
      const std::int64_t payload = kSteps * kRanksOfHost * of_rank;
      const std::int64_t found = more.left[host] - less.left[host];
      EXPECT_GE(found, payload) << where << ", host " << host;
      // Headers, acknowledgements, and a few bytes for each parameter and step.
      EXPECT_LE(found, payload * 105 / 100) << where << ", host " << host;
    }
  }
}

}  // namespace
}  // namespace trireme
